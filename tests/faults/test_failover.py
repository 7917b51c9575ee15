"""The primary of a PostgreSQL dies under load, its standby is promoted, and the node that names both goes on."""

import itertools
import threading
import time

import pytest

from storage.errors import DatabaseAway
from storage.files.instances import Files
from storage.store import Store
from tests.faults.proof import violations
from tests.faults.senders import send, small_series
from tests.support.node_fixtures import NodeFactory
from tests.support.postgresql import replicated
from tests.support.running import START_SECONDS, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.postgresql]


def test_a_node_goes_on_with_the_promoted_standby_and_nothing_acknowledged_is_lost(node_in: NodeFactory) -> None:
    acknowledged: dict[str, bytes] = {}
    is_over = threading.Event()

    def keep_sending(first: int) -> None:
        for number in itertools.count(first):
            if is_over.is_set():
                return
            send(node.config.node.port, small_series(number), acknowledged)
            time.sleep(0.02)

    with replicated() as pair:
        node = node_in(
            pair.url,
            node__allowed_calling_ae='["RAW"]',
            node__failed_associations="0",
            completion__quiet_seconds="1",
            report__not_analysed='"always"',
            delivery__default_destination='"PACS"',
        )
        children = node.children()
        senders = [threading.Thread(target=keep_sending, args=(first,)) for first in (1, 500_001)]
        for sender in senders:
            sender.start()
        try:
            wait_until(lambda: len(acknowledged) > 60 and node.pacs.requests, START_SECONDS, "it receives and delivers")
            pair.cut_off()
            time.sleep(0.5)  # what the standby does not get is not acknowledged
            before = len(acknowledged)
            pair.kill_primary()
            time.sleep(1)
            assert len(acknowledged) == before, "without a database nothing is acknowledged"
            with pytest.raises(DatabaseAway, match="promote a standby"):
                Store.open(pair.url)
            pair.promote()
            wait_until(lambda: len(acknowledged) > before + 60, 20, "it receives again")
        finally:
            is_over.set()
            for sender in senders:
                sender.join(30)
        delivered = len(node.pacs.requests)
        assert violations(node.store, Files(node.config.storage.directory), acknowledged) == []
        wait_until(lambda: len(node.pacs.requests) > delivered + 3, 20, "it delivers again")
        assert node.children() == children, "nothing was restarted"
        node.close()
