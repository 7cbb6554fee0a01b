#!/bin/sh
# What every image has: tools to look around with, an init that passes signals on, and the user that
# Flower's images have.
set -eu

# shellcheck source-path=SCRIPTDIR source=apt.sh
. "$(dirname "$0")/apt.sh"
install_packages ca-certificates iputils-ping net-tools tini
# `ping` asks without privileges, which Docker lets every group do: a program with privileges cannot even be started where
# they are all dropped, as in docker-compose.yml.
chmod u-s /bin/ping
if command -v setcap >/dev/null; then
    setcap -r /bin/ping 2>/dev/null || true
fi

groupadd --gid 49999 app
useradd --uid 49999 --gid 49999 --home-dir /app --shell /bin/sh --no-create-home app
# A named volume that is new takes its owner from here.
for directory in /app /app/data /app/logs /app/outputs /app/.cache /app/.flwr /app/certificates; do
    install -d -o app -g app "$directory"
done
