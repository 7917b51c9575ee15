"""How soon people are notified, and what an outage of the mail server costs: `make bench-notification`.

First a whole node with pages (its network a stand-in: `tests.corpus.network`) and a real SMTP server: positive series, one
after the other.  Measured by one clock: the report is in the database, the PACS has accepted it, the mail is at the server.

Then the notifying job alone on a clock that is moved: the server is away for `--hours` while `--cases` positive cases come,
comes back refusing for an hour, and then takes what comes.  Every case has to have one mail.
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import select

from node.config.sections import Config
from node.runtime import log
from node.workflow import notifications
from node.workflow.context import Context
from storage.database.running import NotificationRow
from storage.database.schema import DeliveryRow, ReportRow
from storage.files.instances import Files
from storage.store import Store
from tests.benchmarks.bench_cost import ALWAYS, numbered
from tests.corpus.images import ANEURYSM_HU, cta
from tests.soak.site import StubNode
from tests.support.builders import FakeClock, claimed, finish
from tests.support.receivers import Mailbox
from tests.support.running import free_port, wait_until

JOB_SECONDS = 2.0
"""The period of the node's job that notifies."""


class TimedMailbox(Mailbox):
    """Knows when each mail came."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[datetime] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """As its parent, and the time is noted of what was taken."""
        answer = await super().handle_DATA(server, session, envelope)
        if answer.startswith("250"):
            self.at.append(datetime.now(UTC))
        return answer


def live(folder: Path, studies: int) -> dict[str, list[float]]:
    """Seconds to the mail of each study, from the report in the database and from its acceptance by the PACS."""
    mailbox = TimedMailbox()
    node = StubNode(folder, **ALWAYS, web__enabled="true", web__port=str(free_port()))
    with node.path.open("a", encoding="utf-8") as config:
        config.write(f'[[notifications]]\nname = "on-call"\nkind = "apprise"\nurl = "{mailbox.start()}"\n')
    series = numbered(cta(ANEURYSM_HU), 0)
    pause = Random(1)
    try:
        node.start()
        time.sleep(10)  # the bundle is loaded
        for number in range(1, studies + 1):
            series.send(node.config.node.port)
            wait_until(lambda number=number: len(mailbox.at) >= number, 60, "the mail is there")  # type: ignore[misc]
            wait_until(lambda number=number: len(node.pacs.requests) >= number, 60, "so is the report")  # type: ignore[misc]
            time.sleep(pause.uniform(0.5, 2.5))  # not in step with the jobs' periods
        with node.store.transactions.reading() as session:
            of_delivery = ReportRow.id == DeliveryRow.report_id
            columns = (ReportRow.series_id, ReportRow.created_at, DeliveryRow.delivered_at)
            rows = session.execute(select(*columns).join(DeliveryRow, of_delivery).order_by(ReportRow.series_id)).all()
    finally:
        node.close()
        mailbox.stop()
    times = list(zip(mailbox.at, rows, strict=True))
    return {
        "from the report in the database": [(at - made).total_seconds() for at, (_, made, _) in times],
        "from its acceptance by the PACS": [
            (at - accepted).total_seconds() for at, (_, _, accepted) in times if accepted
        ],
    }


def outage(folder: Path, cases: int, hours: float) -> str:
    """What came of it, in a line.  Raises AssertionError where a case has no mail, or two."""
    mailbox, clock = TimedMailbox(), FakeClock()
    url = mailbox.start()
    mailbox.stop()
    target = {"name": "on-call", "kind": "apprise", "url": url}
    values = {"storage": {"directory": folder}, "notifications": [target], "report": {"timezone": "UTC"}}
    store = Store.open(f"sqlite:///{folder / 'willis.db'}")
    context = Context(Config.model_validate(values), store, Files(folder), lambda: None, clock)
    begun, known = clock(), 0
    ends = begun + timedelta(hours=hours)

    def due() -> datetime | None:
        with store.transactions.reading() as session:
            return session.scalar(
                select(NotificationRow.next_attempt_at)
                .where(NotificationRow.stage == "pending")
                .order_by(NotificationRow.next_attempt_at)
                .limit(1)
            )

    def go_on(seconds: float = 300.0) -> None:
        notifications.tell(context)
        clock.advance(seconds)

    while clock() < ends:
        if known < cases and clock() >= begun + known * timedelta(hours=hours) / cases:
            known += 1
            assert finish(store, clock, claimed(store, clock, series=f"2.25.9{known:04d}"), notify=True)
        go_on()
    mailbox.refuses = True
    mailbox.start()
    back = clock()
    while clock() < back + timedelta(hours=1):
        go_on(20)
    assert mailbox.mails == []
    mailbox.refuses, takes = False, clock()
    while due() is not None:
        go_on(JOB_SECONDS)
        last = clock()
    for _ in range(10):
        go_on()
    with store.transactions.reading() as session:
        rows = session.scalars(select(NotificationRow)).all()
        stages, attempts = Counter(row.stage for row in rows), [row.attempts for row in rows]
    mailbox.stop()
    store.close()
    subjects = Counter(text.split("not acknowledged")[0] for text in mailbox.texts())
    assert (len(subjects), set(subjects.values()), dict(stages)) == (known, {1}, {"delivered": known}), (
        subjects,
        stages,
    )
    return (
        f"{known} cases came in {hours:g} h without a mail server and an hour of refusals: {known} mails, one for each, the last "
        f"{(last - takes).total_seconds() / 60:.1f} min (by the moved clock) after it took mails again; "
        f"{min(attempts)} to {max(attempts)} attempts each"
    )


def main() -> None:
    """Prints the table, and the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=30)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--hours", type=float, default=24.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="willis-notification-") as named:
        if options.studies:
            print(
                f"{options.studies} positive studies; seconds to the mail\n\n| | median | 90th percentile | most |\n|---|---|---|---|"
            )
            for name, seconds in live(Path(named), options.studies).items():
                ordered = sorted(seconds)
                print(
                    f"| {name} | {statistics.median(ordered):.2f} | {ordered[round(0.9 * (len(ordered) - 1))]:.2f} | {ordered[-1]:.2f} |"
                )
        log.configure("json", "critical")
        folder = Path(named) / "outage"
        folder.mkdir()
        print(f"\n{outage(folder, options.cases, options.hours)}")


if __name__ == "__main__":
    main()
