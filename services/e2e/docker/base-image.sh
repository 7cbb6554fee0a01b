#!/usr/bin/env bash
# base-image.sh NAME: makes the image debian:bookworm-slim of Debian's own packages, for machines that reach a mirror and
# no registry.

set -euo pipefail

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase bookworm "$root" "${APT_MIRROR:-http://deb.debian.org/debian}" >&2
# As the image of that name, without manuals and what is left of the installation.
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
tar --directory "$root" --create . | docker import --change 'CMD ["bash"]' - "$1"
