#!/bin/sh
# What every image has: tools to look around with, an init that passes signals on, and the user that
# Flower's images have.
set -eu

# shellcheck source-path=SCRIPTDIR source=apt.sh
. "$(dirname "$0")/apt.sh"
install_packages ca-certificates iputils-ping net-tools tini
# `ping` asks without privileges: Docker lets every group do that.
chmod u-s /bin/ping

groupadd --gid 49999 app
useradd --uid 49999 --gid 49999 --home-dir /app --shell /bin/sh --no-create-home app
# A named volume that is new takes its owner from here.
for directory in /app /app/data /app/logs /app/outputs /app/.cache /app/.flwr /app/certificates; do
    install -d -o app -g app "$directory"
done
