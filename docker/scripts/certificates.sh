# shellcheck shell=bash
# What start-secure.sh does about certificates, keys and join secrets.

# The user of the containers.
APP_UID=49999

# The pairs that the containers use, without .crt and .key.
pairs() {
    local number
    echo server/server
    for number in $(supernodes); do
        echo "clients/client$number"
    done
}

# What launchers prove themselves with, one for each daemon that has launchers.
join_secrets() {
    local number
    echo join/superlink
    for number in $(supernodes); do
        echo "join/supernode-$number"
    done
}

# private FILE: where a private key or a join secret lies, see docker-compose.secrets.yml.
private() {
    echo "${SECRETS_DIR:-$CERTIFICATES}/$1"
}

# path FILE: where any file lies.
path() {
    case $1 in
        *.key | join/*) private "$1" ;;
        *) echo "$CERTIFICATES/$1" ;;
    esac
}

# The command that makes a file of a pair.
maker_of() {
    case $1 in
        ca/*) echo "./scripts/setup/generate_ca.sh" ;;
        server/*) echo "./scripts/setup/generate_server_cert.sh" ;;
        clients/client*) echo "./scripts/setup/generate_client_cert.sh ${1//[^0-9]/}" ;;
    esac
}

certificates_exist() {
    local file missing=()
    for file in ca/ca.crt $(pairs | sed 's/.*/&.crt &.key/') $(join_secrets); do
        if [[ -d $(path "$file") ]]; then
            fail "$(path "$file") is a directory: Docker makes one where a file is missing that it is to mount." \
                "Remove it with \`sudo rmdir $(path "$file")\` and make the file"
        fi
        # Join secrets are made further below.
        [[ -e $(path "$file") || $file == join/* ]] || missing+=("$file")
    done
    [[ ${#missing[@]} -eq 0 ]] && return
    for file in "${missing[@]}"; do echo "error: $(path "$file") is missing"; done >&2
    {
        echo "make what is missing:"
        echo "  cd ../certificates"
        for file in "${missing[@]}"; do echo "  $(maker_of "${file%.*}")"; done | uniq
    } >&2
    exit 1
}

# certificates_verify STRICT: chains, dates, keys and names.
certificates_verify() {
    local pair host said open problems=() remakes=()
    for pair in $(pairs); do
        case $pair in
            server/*) host=superlink ;;
            *) host=supernode-${pair//[^0-9]/} ;;
        esac
        if said=$(flwr_quic certs verify --ca "$CERTIFICATES/ca/ca.crt" --cert "$CERTIFICATES/$pair.crt" \
            --key "$(private "$pair.key")" --host "$host" 2>&1); then
            echo "   ${said#"$CERTIFICATES/"}"
            continue
        fi
        # Development does with that, see certificates_permit.
        open=$(grep 'everybody on this machine' <<<"$said" || true)
        said=$(grep -v 'everybody on this machine' <<<"$said" || true)
        if [[ -n $open && $1 == yes ]]; then
            said+=$'\n'$open
        elif [[ -n $open ]]; then
            warn "${open#error: }"
        fi
        if [[ -n ${said//[[:space:]]/} ]]; then
            problems+=("$said")
            remakes+=("$(maker_of "$pair")")
        fi
    done
    [[ ${#problems[@]} -eq 0 ]] && return
    printf '%s\n' "${problems[@]}" | grep . >&2
    printf 'to make anew what is not right:\n  cd ../certificates\n' >&2
    printf '  %s\n' "${remakes[@]}" >&2
    exit 1
}

join_secrets_exist() {
    local secret
    mkdir -p "$(private join)"
    for secret in $(join_secrets); do
        [[ -e $(private "$secret") ]] || flwr_quic keys join-secret --out "$(private "$secret")" >/dev/null
    done
}

# certificates_permit STRICT: keys and secrets become files of the containers' user, that the group of who runs this can
# read; where nobody may give files away, everybody can, unless that is refused.
certificates_permit() {
    local files=() file as=()
    for file in $(pairs | sed 's/$/.key/') $(join_secrets); do
        [[ $(stat -c %u "$(private "$file")") == "$APP_UID" ]] || files+=("$(private "$file")")
    done
    chmod a+r "$CERTIFICATES/ca/ca.crt" "$CERTIFICATES"/server/server.crt "$CERTIFICATES"/clients/client*.crt 2>/dev/null ||
        true
    [[ ${#files[@]} -eq 0 ]] && return
    if [[ $EUID -ne 0 ]]; then
        as=(sudo -n)
    fi
    if "${as[@]}" chown "$APP_UID:$(id -g)" "${files[@]}" 2>/dev/null; then
        for file in "${files[@]}"; do
            case $file in
                */join/*) "${as[@]}" chmod 400 "$file" ;;
                *) "${as[@]}" chmod 440 "$file" ;;
            esac
        done
        echo "   given to user $APP_UID: ${files[*]#"$CERTIFICATES/"}"
    elif [[ $1 == yes ]]; then
        fail "user $APP_UID, whose the containers are, cannot be given its private keys without a password, and nobody else" \
            "is to read them: run this once with sudo, or see docker-compose.secrets.yml"
    else
        chmod 644 "${files[@]}"
        warn "everybody on this machine can read the private keys now, which does for development. Otherwise run" \
            "\`sudo chown -R $APP_UID:$(id -g) $CERTIFICATES/*\` and \`chmod 440\` the keys, or see" \
            "docker-compose.secrets.yml"
    fi
}

# Whether the user of the containers really can read what they mount: user ids may be mapped.
certificates_readable() {
    local file mounts=() number=0 said
    for file in ca/ca.crt $(pairs | sed 's/.*/&.crt &.key/') $(join_secrets); do
        number=$((number + 1))
        mounts+=(--volume "$(path "$file"):/check/$number:ro")
    done
    said=$(docker run --rm --network none --entrypoint sh "${mounts[@]}" flwr-quic/superlink:slim -c \
        'for file in /check/*; do cat "$file" >/dev/null || exit 1; done' 2>&1) ||
        fail "the containers, whose user is $APP_UID, cannot read all certificates: $said." \
            "Run \`sudo chown -R $APP_UID:$(id -g) $CERTIFICATES/*\`; with rootless Docker, \`chmod 644\` the keys"
}
