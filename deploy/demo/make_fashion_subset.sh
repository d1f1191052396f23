#!/bin/bash
# Fetches Debian's Fashion-MNIST package (31 MB) and makes the demo's subset of it: see
# make_fashion_subset.py.
#   make_fashion_subset.sh [OUT.tar.gz]      by default fashion-subset.tar.gz beside this script
# Needs `apt-get update` to have run, and numpy and Pillow: name an interpreter that has them in
# PYTHON.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(realpath -m "${1:-$here/fashion-subset.tar.gz}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -o APT::Sandbox::User=root dataset-fashion-mnist
dpkg-deb -x dataset-fashion-mnist_*.deb package
"${PYTHON:-python3}" "$here/make_fashion_subset.py" package/usr/share/datasets/fashion-mnist "$out"
