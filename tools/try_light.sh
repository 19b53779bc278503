#!/usr/bin/env bash
# Measure the light environment .venv-light and run its tests there; `make light` runs this.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv-light/bin/python
packages=$($python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
megabytes() { du -s --block-size=MB "$@" "$packages" | grep -o '^[0-9]*'; }
size=$(megabytes --exclude='pip*' --exclude='setuptools*')
echo "light: $size MB installed, $(megabytes) MB with pip and setuptools"
[ "$size" -lt 450 ] || { echo "light: expected less than 450 MB"; exit 1; }
if $python -c 'import tensorflow' 2> /dev/null; then echo "light: TensorFlow is there"; exit 1; fi
$python -m pip install --quiet --disable-pip-version-check 'pytest>=8.3' 'hypothesis>=6.112'
model=.venv-light/model/light.h5
mkdir -p "${model%/*}"
.venv/bin/python tests/light_model.py "$model"
DEEP_RANKING_LIGHT_MODEL="$PWD/$model" PYTHONPATH=. $python -m pytest tests/test_light_installation.py
