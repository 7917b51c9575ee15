#!/usr/bin/env bash
# `make test-viewer`: OHIF over Orthanc's DICOMweb in headless Chromium; the pictures are left in var/viewer.
# OHIF's bundle is packed, not installed: it needs none of its dependencies.
set -euo pipefail
cd "$(dirname "$0")/../.."

PATH=$PATH:/usr/sbin
missing=()
command -v Orthanc >/dev/null || missing+=(orthanc)
[[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ]] || missing+=(orthanc-dicomweb)
command -v chromium >/dev/null || missing+=(chromium)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
if ((${#missing[@]})); then
    echo "not installed: ${missing[*]}; as root: apt-get install -y ${missing[*]}" >&2
    exit 2
fi

tools=var/viewer/tools
mkdir -p "$tools"
if [[ ! -d $tools/ohif/dist ]]; then
    (cd "$tools" && npm pack --silent @ohif/app@3.12.0 >/dev/null && mkdir -p ohif && tar xzf ohif-app-3.12.0.tgz --strip-components=1 -C ohif)
fi
[[ -d $tools/node_modules/playwright-core ]] ||
    npm install --prefix "$tools" --ignore-scripts --no-audit --no-fund --silent playwright-core@1.65.1
exec .venv/bin/python -m tests.viewer.run "$@"
