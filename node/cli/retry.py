"""`willis retry`: a dead letter or an analysis, once more."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from ai.wording import counted
from node.cli.app import ConfigOption, app, configuration, console, one_line_errors
from node.cli.worklist import case_called
from node.errors import NodeError
from node.runtime.notify import NODE_PROCESS, WORKER_PROCESS, wake
from storage.store import Store


@app.command(epilog="Example: willis retry 7")
def retry(
    case: Annotated[str, typer.Argument(help="Case number, Series Instance UID or report UID.")] = "",
    notifications: Annotated[
        bool, typer.Option("--notifications", help="Send those that were refused or given up again.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Deliver a dead letter again; without one, analyse the case again as a new revision."""
    with one_line_errors():
        if bool(case) == notifications:
            raise NodeError("name a case, or write --notifications")
        checked = configuration(config)
        store = Store.open(checked.storage.url)
        if notifications:
            number = counted(store.notifications.requeue(datetime.now(UTC)), "notification is", "notifications are")
            wake(checked.storage.directory, NODE_PROCESS)
            console.print(f"{number} pending again")
            return
        row = case_called(store.worklist, case)
        requeued = sum(
            store.outbox.requeue(report["id"], datetime.now(UTC)) for report in store.worklist.reports(row["case_id"])
        )
        if not requeued and not store.queue.retry(row["case_id"]):
            raise NodeError(
                f"case {row['case_id']} is {row['stage']}: it has not ended yet, so there is nothing to retry"
            )
        for process in (NODE_PROCESS, WORKER_PROCESS):
            wake(checked.storage.directory, process)
        pending = counted(requeued, "delivery is", "deliveries are")
        result = f"{pending} pending again" if requeued else "waits to be analysed again as a new revision"
        console.print(f"case {row['case_id']}: {result}")
