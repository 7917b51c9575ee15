"""Files go to Ceph's S3 gateway and come back from it: another server than the one that most tests have."""

from hashlib import sha256
from io import BytesIO

import pytest

from storage.errors import ObjectsAway
from storage.files.objects import AlreadyThere, Bucket, Object, Objects
from tests.integration.test_object_store import kept
from tests.support.object_store import BUCKET, Host, HostFactory, host, s3, s3_server
from tests.support.radosgw import RadosGateway, radosgw

__all__ = ["host", "radosgw", "s3", "s3_server"]


@pytest.fixture
def node(host: HostFactory, radosgw: RadosGateway) -> Host:
    return host(objects_endpoint=radosgw.endpoint)


def held(radosgw: RadosGateway, path: str) -> bytes:
    return bytes(radosgw.client.get_object(Bucket=BUCKET, Key=f"site-a/{path}")["Body"].read())


def test_what_was_received_goes_there_byte_for_byte_and_another_host_reads_it(
    node: Host, host: HostFactory, radosgw: RadosGateway
) -> None:
    files = kept(node)
    assert node.upload() == len(files)
    assert [held(radosgw, file.path) for file in files] == [node.files.path(file).read_bytes() for file in files]
    other = host("b", objects_endpoint=radosgw.endpoint)
    assert [other.files.here(file).read_bytes() for file in files] == [held(radosgw, file.path) for file in files]


def test_half_an_object_that_lies_there_is_replaced(node: Host, radosgw: RadosGateway) -> None:
    [file] = kept(node, 1)
    whole = node.files.path(file).read_bytes()
    radosgw.client.put_object(Bucket=BUCKET, Key=f"site-a/{file.path}", Body=whole[: len(whole) // 2])
    assert node.upload() == 1
    assert held(radosgw, file.path) == whole


def test_nothing_is_replaced_that_another_has_put_there(node: Host) -> None:
    objects = node.files.objects
    assert objects is not None
    ours, theirs = b"ours", b"theirs"
    first = objects.create("instances/1", ours, sha256(ours).hexdigest())
    with pytest.raises(AlreadyThere):
        objects.create("instances/1", theirs, sha256(theirs).hexdigest())
    second = objects.replace("instances/1", theirs, sha256(theirs).hexdigest(), first)
    with pytest.raises(ObjectsAway, match="another has changed it meanwhile"):
        objects.replace("instances/1", ours, sha256(ours).hexdigest(), first)
    found = BytesIO()
    assert objects.fetch("instances/1", found, 6) == (Object(6, second.e_tag), sha256(theirs).hexdigest())
    assert found.getvalue() == theirs


def test_while_it_is_away_uploads_wait(node: Host, radosgw: RadosGateway) -> None:
    files = kept(node, 2)
    radosgw.stop()
    try:
        assert node.upload() == 0
    finally:
        radosgw.start()
    node.clock.advance(3600)
    assert node.upload() == len(files)


@pytest.mark.parametrize(
    ("bucket", "keys", "words"),
    [
        ("nowhere", ("willis", "secret"), r"there is no bucket nowhere: create it.*\(NoSuchBucket\)"),
        (BUCKET, ("willis", "wrong"), r"the secret key does not fit the access key"),
        (BUCKET, ("nobody", "secret"), r"it does not know the access key"),
    ],
)
def test_what_it_refuses_is_said_with_the_remedy(
    bucket: str, keys: tuple[str, str], words: str, radosgw: RadosGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[1])
    with pytest.raises(ObjectsAway, match=words):
        Objects(Bucket(f"s3://{bucket}/site-a", radosgw.endpoint, timeout_seconds=5)).check()
