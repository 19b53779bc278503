#!/usr/bin/env bash
# Try the installed package as a user would, in an empty folder; `make wheel` runs this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
deep-ranking --version
deep-ranking --help > /dev/null
python -c "
import deep_ranking, pathlib, sys
home = pathlib.Path(deep_ranking.__file__)
assert pathlib.Path(sys.prefix) in home.parents, f'{home} is not in {sys.prefix}'
missing = set(deep_ranking.__all__) - set(dir(deep_ranking))
assert not missing, f'the tab key does not complete {missing}'
for name in deep_ranking.__all__:
    getattr(deep_ranking, name)
print(f'{len(deep_ranking.__all__)} public names, each importable:', *deep_ranking.__all__)
"
deep-ranking demo --epochs 1
test -s demo_output/digits.h5
