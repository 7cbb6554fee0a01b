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

# private FILE: where a private key or a join secret lies.
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

# is_there FILE: what lies in a directory that only the user of the containers may enter is taken to be.
is_there() {
    local place
    place=$(path "$1")
    [[ -e $place ]] && return
    for place in "$(dirname "$place")" "${SECRETS_DIR:-$CERTIFICATES}"; do
        [[ -d $place && ! -x $place ]] && return
    done
    return 1
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
        [[ $file == join/* ]] || is_there "$file" || missing+=("$file")
    done
    [[ ${#missing[@]} -eq 0 ]] && return
    for file in "${missing[@]}"; do echo "error: $(path "$file") is missing"; done >&2
    {
        echo "make what is missing:"
        echo "  cd ../certificates"
        for file in "${missing[@]}"; do echo "  $(maker_of "${file%.*}")"; done | uniq
        [[ -z ${SECRETS_DIR:-} ]] || echo "and move the keys to $SECRETS_DIR"
    } >&2
    exit 1
}

# verify_pair PAIR: chain, dates, key and names. Who may not read the key has the user of the containers look, who has to.
verify_pair() {
    local host=superlink root='' files look=(flwr_quic)
    [[ $1 == server/* ]] || host=supernode-${1//[^0-9]/}
    files=("$CERTIFICATES/ca/ca.crt" "$CERTIFICATES/$1.crt" "$(private "$1.key")")
    if [[ ! -r ${files[2]} ]]; then
        root=/host
        look=(in_image "$APP_UID" "$root" "${files[@]}" -- flwr-quic)
    fi
    "${look[@]}" certs verify --ca "$root${files[0]}" --cert "$root${files[1]}" --key "$root${files[2]}" \
        --host "$host" 2>&1 | sed "s|$root/|/|g"
}

# certificates_verify STRICT: those of all pairs.
certificates_verify() {
    local pair said open problems=() remakes=()
    for pair in $(pairs); do
        if said=$(verify_pair "$pair"); then
            echo "   ${said#"$CERTIFICATES/"}"
            continue
        fi
        [[ $said != *"cannot read"* && $said != *"bind source path does not exist"* ]] ||
            fail "${said#error: }. You have to be able to read it, or user $APP_UID, who the containers are: $(how_to_permit)"
        # Development does with that.
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
    for secret in $(join_secrets); do
        is_there "$secret" || flwr_quic keys join-secret --out "$(private "$secret")" >/dev/null ||
            fail "put a secret into $(private "$secret"): flwr-quic keys join-secret --out FILE makes one"
    done
}

# certificates_permit STRICT: keys and secrets become files of the containers' user that their group, which is that of who
# made them, can read. Those that everybody can read are left as somebody has made them.
certificates_permit() {
    local file place owner mode given=()
    chmod -f a+r "$CERTIFICATES/ca/ca.crt" "$CERTIFICATES"/server/server.crt "$CERTIFICATES"/clients/client*.crt || true
    for file in $(pairs | sed 's/$/.key/') $(join_secrets); do
        place=$(private "$file")
        # What cannot be looked at is the other user's already.
        read -r owner mode < <(stat -Lc '%u %a' "$place" 2>/dev/null || echo "$APP_UID 0")
        [[ $mode != *[4-7] || $1 == no ]] || fail "everybody on this machine can read $place: \`chmod 440\` it"
        [[ $owner == "$APP_UID" || $mode == *[4-7] ]] || given+=("$place")
    done
    [[ ${#given[@]} -eq 0 ]] && return
    # shellcheck disable=SC2016 # of that shell
    as_root sh -c 'uid=$1; shift; for file; do chown "$uid" "$file" && chmod 440 "$file" || exit; done' sh \
        "$APP_UID" "${given[@]}" || fail "${given[*]} could not be given to user $APP_UID: $(how_to_permit)"
    echo "   given to user $APP_UID: ${given[*]#"$CERTIFICATES/"}"
}

# What makes keys readable by hand.
how_to_permit() {
    echo "\`sudo chown $APP_UID\` private keys and join secrets, mode 440; where Docker maps user ids, and for development," \
        "\`chmod 644\` them"
}

# Whether the user of the containers really can read what they mount: user ids may be mapped.
certificates_readable() {
    local file files=() said
    for file in ca/ca.crt $(pairs | sed 's/.*/&.crt &.key/') $(join_secrets); do
        files+=("$(path "$file")")
    done
    said=$(in_image "$APP_UID" /host "${files[@]}" -- cat "${files[@]/#//host}" 2>&1 >/dev/null) ||
        fail "the containers, whose user is $APP_UID, cannot read all certificates: $said. $(how_to_permit)"
}
