#!/bin/sh
# Installs Postgres (15 or newer) and Redis (7.0 or newer, or Valkey 7.2) for a private stack.
# Prints each step first, and does nothing if both are installed. Supports Debian, Ubuntu and their
# derivatives, and macOS with Homebrew.
set -eu

have_postgres() {
    command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 ||
        ls /opt/homebrew/opt/postgresql*/bin/initdb /usr/local/opt/postgresql*/bin/initdb >/dev/null 2>&1
}
have_redis() {
    command -v redis-server >/dev/null 2>&1 || command -v valkey-server >/dev/null 2>&1
}

missing=""
have_postgres || missing="postgresql"
have_redis || missing="$missing redis"
[ -n "$missing" ] || exit 0

if command -v apt-get >/dev/null 2>&1; then
    packages=$(echo "$missing" | sed 's/redis/redis-server/')
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    echo "Installing $packages with apt-get. The system-wide servers are not used." >&2
    # No system-wide cluster, so that none starts at boot or listens on port 5432.
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        $sudo mkdir -p /etc/postgresql-common
        echo "create_main_cluster = false" | $sudo tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    $sudo apt-get update -qq
    # shellcheck disable=SC2086 # one word per package
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o Dpkg::Options::=--force-confold $packages >&2
elif command -v brew >/dev/null 2>&1; then
    packages=$(echo "$missing" | sed 's/postgresql/postgresql@17/')
    echo "Installing $packages with brew." >&2
    # shellcheck disable=SC2086
    brew install $packages >&2
else
    echo "Missing: $missing. Install Postgres 15 or newer and Redis 7.0 or newer, then try again." >&2
    exit 1
fi
