#!/usr/bin/env bash
# Everything that an installation without a network needs, in one folder: Willis as a wheel, and its requirements in the
# pinned versions, for this machine's Python and platform.  There:
#   python3 -m venv /opt/willis
#   /opt/willis/bin/pip install --no-index --find-links wheelhouse --constraint wheelhouse/constraints.txt 'willis[postgresql,s3,engine]'
set -euo pipefail
cd "$(dirname "$0")/.."
to=${1:-build/wheelhouse}
python=${PYTHON:-python3}
mkdir -p "$to"
"$python" -m pip wheel --constraint constraints.txt --wheel-dir "$to" '.[postgresql,s3,engine]'
cp constraints.txt "$to/"
(cd "$to" && sha256sum ./*.whl constraints.txt >SHA256SUMS)
echo "$(find "$to" -name '*.whl' | wc -l) wheels in $to"
