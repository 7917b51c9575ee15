#!/usr/bin/env bash
# Ceph's S3 gateway 16.2.15 takes the quotes of an ETag in the If-Match of a PUT for a part of its value, and of a GET not.
#
# Software: radosgw, ceph-mon and ceph-osd 16.2.15 (Debian 12, `apt-get install radosgw ceph-mon ceph-osd ceph-common`), on a
# cluster of one monitor and one OSD in memory, without authentication inside; asked by boto3 1.44.8.
# Input: an object is put; GET and PUT of it with If-Match, which has the ETag as the answer to the first PUT gave it, in
# quotes, and then without them.
# Expected: an entity tag is a quoted string (RFC 9110, 8.8.3), and one that was just given matches the object.
# Seen: GET answers 200 to both.  PUT answers 412 (PreconditionFailed) to the tag in quotes, though nobody has changed the
# object, and replaces it for the tag without quotes.
#
# So "replace it if it is still what I saw", written as for Amazon S3, never succeeds there and looks like another writer's
# change.  This prints what is seen, and fails where that has changed.
set -euo pipefail
command -v radosgw >/dev/null ||
    apt-get install -y -qq --no-install-recommends radosgw ceph-mon ceph-osd ceph-common >/dev/null
folder=$(mktemp -d)
ended() {
    for file in "$folder"/*.pid; do kill -9 "$(cat "$file")" 2>/dev/null || true; done
    sleep 0.5
    rm -rf "$folder"
}
trap ended EXIT
radosgw --version | grep -q "ceph version 16\.2\.15" || { echo "written for 16.2.15: $(radosgw --version)"; exit 1; }
python3 -m pip install --quiet --disable-pip-version-check --target "$folder/python" boto3==1.44.8
monitor=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
gateway=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
cluster=$(cat /proc/sys/kernel/random/uuid) osd=$(cat /proc/sys/kernel/random/uuid)
mkdir "$folder/mon" "$folder/osd"
export CEPH_CONF=$folder/ceph.conf
cat >"$CEPH_CONF" <<CONFIGURATION
[global]
fsid = $cluster
mon host = [v2:127.0.0.1:$monitor]
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
osd pool default size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
mon allow pool size one = true
mon data avail crit = 0
run dir = $folder
log file = $folder/\$name.log
admin socket = $folder/\$name.asok
pid file = $folder/\$name.pid
mon data = $folder/mon
osd data = $folder/osd
keyring = $folder/keyring
rgw frontends = beast endpoint=127.0.0.1:$gateway
CONFIGURATION
{
    monmaptool --create --addv a "[v2:127.0.0.1:$monitor]" --fsid "$cluster" "$folder/monmap"
    ceph-mon --mkfs -i a --monmap "$folder/monmap"
    ceph-mon -i a
    ceph osd new "$osd"
    ceph-osd -i 0 --mkfs --osd-uuid "$osd"
    ceph-osd -i 0
    for _ in $(seq 60); do ceph osd stat | grep -q "1 up" && break; sleep 0.5; done
    radosgw-admin user create --uid one --display-name one --access-key one --secret-key secret --log-file "$folder/admin.log"
    ceph-authtool --create-keyring "$folder/keyring" --gen-key -n client.rgw.a
    radosgw -n client.rgw.a
} >"$folder/out" 2>&1 || { cat "$folder/out"; exit 1; }
PYTHONPATH=$folder/python python3 - "http://127.0.0.1:$gateway" <<'PROGRAM'
import sys
import time
from collections.abc import Callable
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError


def main(endpoint: str) -> None:
    """What is described above was seen.  Raises AssertionError where it was not."""
    keys = {"aws_access_key_id": "one", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    s3 = boto3.client("s3", endpoint_url=endpoint, **keys)
    for _ in range(60):
        try:
            s3.list_buckets()
            break
        except BotoCoreError:
            time.sleep(0.5)
    s3.create_bucket(Bucket="bucket")
    where = {"Bucket": "bucket", "Key": "key"}
    tag = s3.put_object(**where, Body=b"first")["ETag"]
    assert tag.startswith('"') and tag.endswith('"'), f"the ETag is {tag}"
    bare = tag.strip('"')
    seen = {
        "GET in quotes": answered(lambda: s3.get_object(**where, IfMatch=tag)),
        "GET without": answered(lambda: s3.get_object(**where, IfMatch=bare)),
        "PUT in quotes": answered(lambda: s3.put_object(**where, Body=b"second", IfMatch=tag)),
        "PUT without": answered(lambda: s3.put_object(**where, Body=b"second", IfMatch=bare)),
    }
    for name, status in seen.items():
        print(f"{name}: {status}")
    assert list(seen.values()) == [200, 200, 412, 200], "that has changed"
    assert s3.get_object(**where)["Body"].read() == b"second"


def answered(ask: Callable[[], Any]) -> int:
    """The HTTP status."""
    try:
        return int(ask()["ResponseMetadata"]["HTTPStatusCode"])
    except ClientError as error:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


main(sys.argv[1])
PROGRAM
