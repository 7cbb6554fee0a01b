#!/usr/bin/env bash
# Puts the units into /etc/systemd/system and the examples of their flags into /etc/flwr-quic, where files that are there
# stay as they are. DESTDIR is put in front of both.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
units=${DESTDIR:-}/etc/systemd/system
flags=${DESTDIR:-}/etc/flwr-quic

if [[ -z ${DESTDIR:-} && $EUID -ne 0 ]]; then
    echo "error: only root may install units: sudo bash scripts/systemd/install.sh" >&2
    exit 1
fi
install -d -m 755 "$units" "$flags"
install -m 644 -- *.service "$units"
for file in *.toml; do
    [[ -e $flags/$file ]] || install -m 644 "$file" "$flags"
done
if [[ -z ${DESTDIR:-} && -d /run/systemd/system ]]; then
    systemctl daemon-reload
fi
echo "units are in $units, flags in $flags; scripts/systemd/README.md says how to go on"
