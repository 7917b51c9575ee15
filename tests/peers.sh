#!/usr/bin/env bash
# What the tests need besides Python is installed, where that may be done here; with arguments, those packages alone.
set -euo pipefail

# Real peers: dcmtk and Orthanc to talk to, dicom3tools and PixelMed to validate, PostgreSQL to store in,
# strace to record what is flushed, chromium to look at the pages, promtool and amtool to try what monitors are given,
# slapd to sign people in, haproxy to put before several hosts, Ceph's S3 gateway as an object store.
peers=(dcmtk orthanc orthanc-dicomweb dicom3tools libpixelmed-java default-jre-headless postgresql strace chromium prometheus
       prometheus-alertmanager slapd ldap-utils haproxy radosgw ceph-mon ceph-osd ceph-common)
(($# == 0)) || peers=("$@")
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
        echo "not installed, and not root: ${missing[*]} (sudo apt-get install ${missing[*]}); what needs them is left out" \
             "and named below"
    fi
fi
