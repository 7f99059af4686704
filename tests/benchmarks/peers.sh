#!/bin/sh
# Downloads the alternatives of the benchmarks into a directory, without installing anything: etcd
# and nats-server from their Debian packages, Python packages into a virtual environment. Reports and
# skips those that are not available.
set -eu
dir=${1:?usage: peers.sh DIRECTORY}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$dir"

# unpack PROGRAM PACKAGE: unpacks a program from its package unless it is on the PATH or in "$dir".
unpack() {
    if command -v "$1" >/dev/null 2>&1 || [ -x "$dir/bin/$1" ]; then return; fi
    package=$(mktemp -d)
    if (cd "$package" && apt-get -qq download "$2" && dpkg -x "$2"_*.deb .) >/dev/null 2>&1; then
        mkdir -p "$dir/bin"
        find "$package" -type f -name "$1" -perm -u+x -exec cp {} "$dir/bin/$1" \;
    else
        echo "$1 is not available: its rows are skipped" >&2
    fi
    rm -rf "$package"
}
unpack etcd etcd-server
unpack nats-server nats-server

requirements=$here/../naive/requirements.txt
if ! cmp -s "$requirements" "$dir/python/requirements.txt"; then
    if python3 -m venv --clear "$dir/python" && "$dir/python/bin/pip" install -q -r "$requirements" >&2; then
        cp "$requirements" "$dir/python/requirements.txt"
    else
        echo "packages of naive Python are not available: its rows are skipped" >&2
    fi
fi
