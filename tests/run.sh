#!/usr/bin/env bash
# The test command: linters, types, import rules, every test, coverage.  Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin

# Real peers: dcmtk and Orthanc to talk to, dicom3tools and PixelMed to validate, PostgreSQL to store in,
# strace to record what is flushed, chromium to look at the pages, promtool and amtool to try what monitors are given,
# slapd to sign people in.
peers=(dcmtk orthanc orthanc-dicomweb dicom3tools libpixelmed-java default-jre-headless postgresql strace chromium prometheus
       prometheus-alertmanager slapd ldap-utils)
missing=()
for package in "${peers[@]}"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -q '^installed$' || missing+=("$package")
done
if ((${#missing[@]})); then
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        echo "installing ${missing[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    else
        echo "not installed, and not root: ${missing[*]}; the tests that need them are left out and named below"
    fi
fi

$bin/ruff check .
$bin/ruff format --check .
$bin/mypy
$bin/lint-imports
$bin/coverage erase
# A file's tests stay together: on as many cores as there are, but two servers of every kind at most.  In the order of
# tests/conftest.py: the few files that take longest must not be the last.
$bin/coverage run -m pytest --numprocesses auto --maxprocesses 2 --dist loadfile --no-loadscope-reorder "$@"
$bin/coverage combine --quiet
$bin/coverage report
$bin/python -m tests.support.branches "${WILLIS_COVERAGE:-90}"
