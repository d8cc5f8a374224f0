#!/usr/bin/env bash
# Installs Debian's Chromium for the tests of reports (tests/reports/), which say why they skip without it.
#
#   bash tools/install_chromium.sh
#
# Does nothing where there is one. Only root can install it; anybody else gets status 2 and a sentence.
set -euo pipefail

is_installed() {
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null
}

is_installed && exit
if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
    echo "Chromium is not installed, and this script can only install it as root with apt-get;" \
        "install Debian's package chromium" >&2
    exit 2
fi
echo "installing chromium" >&2
apt=(timeout 600 apt-get -qq -o Acquire::http::Timeout=20 -o Acquire::Retries=1 -o DPkg::Lock::Timeout=120)
export DEBIAN_FRONTEND=noninteractive
# The package lists of a fresh machine are empty or old; where they cannot be fetched, what is there may do.
{ "${apt[@]}" update || true; "${apt[@]}" install -y --no-install-recommends chromium; } </dev/null >/dev/null 2>&1 || true
hash -r
if ! is_installed; then
    echo "chromium could not be installed; install it by hand" >&2
    exit 2
fi
