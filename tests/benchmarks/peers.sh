#!/bin/sh
# Brings what Tidings is measured beside into a directory, and installs nothing: etcd and nats-server out of their Debian
# packages, Python packages into an environment of their own. What can not be had is said and left out.
set -eu
dir=${1:?say where to}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$dir"

unpack() { # program, package
    if command -v "$1" >/dev/null 2>&1 || [ -x "$dir/bin/$1" ]; then return; fi
    package=$(mktemp -d)
    if (cd "$package" && apt-get -qq download "$2" && dpkg -x "$2"_*.deb .) >/dev/null 2>&1; then
        mkdir -p "$dir/bin"
        find "$package" -type f -name "$1" -perm -u+x -exec cp {} "$dir/bin/$1" \;
    else
        echo "$1 is not to be had: its rows are left out" >&2
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
        echo "the packages of tests/naive are not to be had: its rows are left out" >&2
    fi
fi
