# shellcheck shell=sh
# Debian packages in a build, also behind a proxy that inspects TLS (EXTRA_CA, a PEM certificate) and
# from another mirror (APT_MIRROR). Nothing of either stays in the image.

# install_packages NAME...
install_packages() {
    _settings=/tmp/apt.conf
    {
        echo 'APT::Install-Recommends "false";'
        if [ -n "${EXTRA_CA:-}" ]; then
            printf '%s\n' "$EXTRA_CA" >/tmp/extra-ca.crt
            echo 'Acquire::https::CAInfo "/tmp/extra-ca.crt";'
        fi
        if [ -n "${APT_MIRROR:-}" ]; then
            printf 'deb %s bookworm main\n' "$APT_MIRROR" >/tmp/mirror.list
            echo 'Dir::Etc::sourcelist "/tmp/mirror.list"; Dir::Etc::sourceparts "/nowhere";'
        fi
    } >"$_settings"
    export APT_CONFIG="$_settings" DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y "$@"
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log \
        /tmp/extra-ca.crt /tmp/mirror.list "$_settings"
}
