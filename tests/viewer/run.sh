#!/usr/bin/env bash
# `make test-viewer`: OHIF over Orthanc's DICOMweb in headless Chromium; the pictures are left in var/viewer.
# Needs orthanc orthanc-dicomweb chromium nodejs npm; OHIF's bundle is packed, not installed: it needs none of its dependencies.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=var/viewer/tools
mkdir -p "$tools"
if [[ ! -d $tools/ohif/dist ]]; then
    (cd "$tools" && npm pack --silent @ohif/app@3.12.0 >/dev/null && mkdir -p ohif && tar xzf ohif-app-3.12.0.tgz --strip-components=1 -C ohif)
fi
[[ -d $tools/node_modules/playwright-core ]] ||
    npm install --prefix "$tools" --ignore-scripts --no-audit --no-fund --silent playwright-core@1.65.1
exec .venv/bin/python -m tests.viewer.run
