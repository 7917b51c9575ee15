"""Two hosts on one PostgreSQL and one object store, behind HAProxy: whole nodes on two addresses of this machine."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.config.peer import Peer
from node.simulated_pacs import SimulatedPeer
from storage.store import Store
from tests.support import held_worker
from tests.support.haproxy import Balancer, balanced
from tests.support.object_store import BUCKET, ObjectStore
from tests.support.running import RunningNode, free_port

ADDRESSES = {"a": "127.0.0.2", "b": "127.0.0.3"}


class HostNode(RunningNode):
    """One on a host of that name, whose network is quick and stands in for the real one; all else is as it is shipped."""

    module = held_worker.MODULE

    def __init__(self, name: str, folder: Path, database_url: str, **settings: str) -> None:
        """As every `RunningNode`; its process ids are no other host's."""
        super().__init__(folder, database_url, **settings)
        self.environment = {"WILLIS_TEST_HOST": f"host-{name}", "WILLIS_TEST_HOLD": str(folder / "hold")}

    def received(self) -> int:
        """How many instances came to this host."""
        return len(list((self.config.storage.directory / "instances").rglob("*.dcm")))


@dataclass
class Hosts:
    """Two nodes by their names, what is before them, and the PACS that both deliver to."""

    nodes: dict[str, HostNode]
    balancer: Balancer

    @property
    def address(self) -> Peer:
        return Peer(ae_title="WILLIS", host="127.0.0.1", port=self.balancer.port)

    @property
    def pacs(self) -> SimulatedPeer:
        return self.nodes["a"].pacs

    @property
    def store(self) -> Store:
        return self.nodes["a"].store

    def where(self, path: str) -> Path:
        """Where the file of this name lies, at whichever host; where it should, if nowhere."""
        places = [node.config.storage.directory / path for node in self.nodes.values()]
        return next((place for place in places if place.exists()), places[0])


def in_bucket(folder: Path, s3: ObjectStore) -> dict[str, str]:
    """The keys of [storage] for the bucket; credentials lie in the folder."""
    credentials = folder / "credentials"
    credentials.write_text("[default]\naws_access_key_id = willis\naws_secret_access_key = secret\n")
    endpoint = f"http://127.0.0.1:{s3.port}"
    return {
        "objects": f"s3://{BUCKET}/site-a",
        "objects_endpoint": endpoint,
        "objects_credentials": str(credentials),
    }


@contextmanager
def running_hosts(folder: Path, database_url: str, s3: ObjectStore, **settings: str) -> Iterator[Hosts]:
    """Two that the balancer has found; `settings` as of `RunningNode`.  Nothing runs afterwards."""
    dicom_port, web_port = free_port(), free_port()
    nodes: dict[str, HostNode] = {}
    try:
        for name, address in ADDRESSES.items():
            (folder / name).mkdir()
            pacs = {"peers__PACS__port": str(nodes["a"].pacs_port)} if nodes else {}
            storage = {f"storage__{key}": repr(value) for key, value in in_bucket(folder, s3).items()}
            of_all = {
                "node__host": repr(address),
                "node__port": str(dicom_port),
                "node__allowed_calling_ae": '["RAW"]',
                "node__failed_associations": "0",
                "completion__quiet_seconds": "2",
                "web__enabled": "true",
                "web__host": repr(address),
                "web__port": str(web_port),
            }
            nodes[name] = HostNode(name, folder / name, database_url, **pacs, **storage, **(of_all | settings))
        with ThreadPoolExecutor() as threads:
            list(threads.map(RunningNode.start, nodes.values()))
        with balanced(folder, list(ADDRESSES.values()), dicom_port, web_port) as balancer:
            yield Hosts(nodes, balancer)
    finally:
        with ExitStack() as closing:
            for node in nodes.values():
                closing.callback(node.close)  # the second signal: without draining
                if node.process is not None:
                    node.process.terminate()
