#!/usr/bin/env bash
# Makes a node ready: the checkout's environment, the login profile, a token that its owner alone reads. A second run
# installs nothing. Made for Ubuntu 24.04 with sudo; elsewhere Python >= 3.11 with venv, and a GPU's driver, must be there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

install() { sudo apt-get update -qq && sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"; }

if [[ ! -x .venv/bin/python ]] && ! python3 -c 'import ensurepip' 2>/dev/null; then install python3-venv; fi

if grep -qs 0x10de /sys/bus/pci/devices/*/vendor; then # NVIDIA's; the lock's torch is built for CUDA 13
    command -v nvidia-smi >/dev/null || { install nvidia-driver-580-server-open && sudo modprobe nvidia; }
else # PyPI's torch brings GBs of CUDA libraries; pip prefers the +cpu build of this index, which satisfies the lock too
    export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
fi
scripts/bootstrap

line=". $PWD/cluster/profile.sh"
grep -qsxF "$line" ~/.bashrc || echo "$line" >>~/.bashrc
chmod 700 ~/.ray
chmod 600 ~/.ray/auth_token
