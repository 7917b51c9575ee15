"""What people ask of a node: worklist, show, status, retry."""

import csv
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from ai.errors import Reason
from ai.wording import counted
from node.cli.app import ConfigOption, app, configuration, console, one_line_errors
from node.config.sections import Config
from node.errors import NodeError
from node.rules.eligibility import Ineligible
from node.runtime.notify import NODE_PROCESS, WORKER_PROCESS, wake
from node.scp.rejections import last_rejections
from storage.files.instances import Files
from storage.queries.worklist import Clock, Row
from storage.stages import DeliveryStage, Stage
from storage.store import Store

_OUTCOME_STYLE = {"positive": "bold red", "not_analysed": "yellow", "negative": "green"}
_CLOCK_PARTS = ("settle", "wait", "volume", "inference", "report", "delivery", "total")
CaseArgument = Annotated[str, typer.Argument(help="Case number, Series Instance UID or report UID.")]


@app.command(epilog="Example: willis worklist --json | jq '.[] | select(.outcome == \"positive\")'")
def worklist(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep the table up to date until Ctrl-C.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows.")] = 100,
) -> None:
    """List the cases, the most urgent first."""
    with one_line_errors():
        store = _store(configuration(config))
        if as_json:
            sys.stdout.write(json.dumps(store.worklist.rows(limit), default=str, ensure_ascii=False, indent=1) + "\n")
        elif as_csv:
            _write_csv(store.worklist.rows(limit))
        elif watch:
            _watch(lambda: worklist_table(store.worklist.rows(limit)))
        else:
            console.print(worklist_table(store.worklist.rows(limit)))


def _store(config: Config) -> Store:
    return Store.open(config.storage.url)


def _write_csv(rows: Sequence[Row]) -> None:
    if rows:
        writer = csv.DictWriter(sys.stdout, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _watch(table: Callable[[], Table], seconds: float = 1.0) -> None:
    with Live(table(), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(seconds)
                live.update(table(), refresh=True)
        except KeyboardInterrupt:
            return


def worklist_table(rows: Iterable[Row]) -> Table:
    """The rows for a terminal."""
    table = Table(title="Willis worklist · research use, not a medical device", title_style="")
    for heading in (
        "Case",
        "Patient",
        "Accession",
        "Series",
        "Slices",
        "State",
        "P",
        "Where",
        "mm",
        "Report",
        "Last slice",
    ):
        table.add_column(heading, justify="right" if heading in ("Case", "Slices", "P", "mm") else "left")
    for row in rows:
        state = row["outcome"] if row["outcome"] and row["stage"] not in ("ready", "analysing") else row["stage"]
        said = f"{state}: {row['reason']}" if row["reason"] else state
        table.add_row(
            str(row["case_id"]),
            row["patient_name"] or row["patient_id"],
            row["accession_number"],
            row["series_description"],
            str(row["instance_count"]),
            said.replace("_", " "),
            _number(row["p_present"], 2),
            row["top_location"] or "",
            _number(row["diameter_mm"], 1),
            row["delivery"] or "",
            f"{row['last_instance_at']:%Y-%m-%d %H:%M:%S}",
            style=_OUTCOME_STYLE.get(row["outcome"] or "", ""),
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


@app.command(epilog="Example: willis show 7")
def show(case: CaseArgument, config: ConfigOption = None) -> None:
    """Show everything known of one case."""
    with one_line_errors():
        store = _store(configuration(config))
        row = _case(store, case)
        console.print(_details(row))
        if row["lesions"]:
            console.print(_lesions(row["lesions"]))
        for report in store.worklist.reports(row["case_id"]):
            console.print(
                f"report of revision {report['revision']}: {report['outcome']}, {report['sop_instance_uid']}",
                highlight=False,
            )
        for delivery in store.worklist.deliveries(row["case_id"]):
            said = f", last error: {delivery.last_error}" if delivery.last_error else ""
            console.print(
                f"delivery of the {delivery.kind} to {delivery.destination}: {delivery.stage} after "
                f"{counted(delivery.attempts, 'attempt')}{said}",
                highlight=False,
            )


def _case(store: Store, case: str) -> Row:
    row = store.worklist.case(case)
    if row is None:
        raise NodeError(f"no case {case!r}; `willis worklist` lists the cases")
    return row


def _details(row: Row) -> Table:
    table = Table(show_header=False, box=None)
    for key, value in row.items():
        if value not in (None, "", []) and key != "lesions":
            table.add_row(key, str(value))
    if row["reason"]:
        table.add_row("that is", explained(row["reason"]))
    return table


def explained(reason: str) -> str:
    """A sentence for a reason code."""
    for codes in (Reason, Ineligible):
        if reason in set(codes):
            return codes(reason).explained
    return "Another reconstruction of the same acquisition was analysed." if reason == "covered" else reason


def _lesions(lesions: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="Findings, unverified")
    for heading in ("Location", "Probability", "Diameter mm", "Centre LPS mm"):
        table.add_column(heading)
    for lesion in lesions:
        centre = ", ".join(f"{value:.1f}" for value in lesion["centre_lps_mm"])
        table.add_row(lesion["location"], _number(lesion["probability"], 2), _number(lesion["diameter_mm"], 1), centre)
    return table


@app.command(epilog="Example: willis status")
def status(
    config: ConfigOption = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show queues, disk, last errors, and how long cases took from last slice to accepted report."""
    with one_line_errors():
        checked = configuration(config)
        now, state = datetime.now(UTC), _store(checked).worklist.status()
        values: dict[str, Any] = {
            "series": {stage.value: state.stages.get(stage, 0) for stage in Stage},
            "deliveries": {stage.value: state.deliveries.get(stage, 0) for stage in DeliveryStage},
            "oldest_ready_seconds": _age(state.oldest_ready_at, now),
            "oldest_pending_delivery_seconds": _age(state.oldest_pending_at, now),
            "free_gib": round(Files(checked.storage.directory).free_bytes() / 2**30, 1),
            "last_errors": [f"{at:%Y-%m-%d %H:%M:%S} {error}" for at, error in state.errors],
            "last_rejected_callers": [each.said for each in last_rejections(checked.storage.directory)],
            "last_slice_to_report_seconds": percentiles(state.clocks),
        }
        if as_json:
            sys.stdout.write(json.dumps(values, indent=1) + "\n")
        else:
            console.print(_status_table(values))


def _age(since: datetime | None, now: datetime) -> float | None:
    return None if since is None else round((now - since).total_seconds(), 1)


def percentiles(clocks: Sequence[Clock]) -> dict[str, dict[str, float]]:
    """Median and 95th percentile of each part of the way, in seconds, over delivered cases."""
    if not clocks:
        return {}
    return {part: _median_and_p95([getattr(clock, part) for clock in clocks]) for part in _CLOCK_PARTS}


def _median_and_p95(values: Sequence[float]) -> dict[str, float]:
    p95 = statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
    return {"median": round(statistics.median(values), 2), "p95": round(p95, 2)}


def _status_table(values: Mapping[str, Any]) -> Table:
    table = Table(show_header=False, box=None)
    for key, value in values.items():
        if isinstance(value, dict):
            said = "   ".join(f"{name} {_said(part)}" for name, part in value.items()) or "none yet"
        else:
            said = "\n".join(value) or "none" if isinstance(value, list) else _said(value)
        table.add_row(key.replace("_", " "), said)
    return table


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['median']} (95 %: {value['p95']})"
    return "none" if value is None else str(value)


@app.command(epilog="Example: willis retry 7")
def retry(case: CaseArgument, config: ConfigOption = None) -> None:
    """Deliver a dead letter again; without one, analyse the case again as a new revision."""
    with one_line_errors():
        checked = configuration(config)
        store = _store(checked)
        row = _case(store, case)
        requeued = sum(
            store.outbox.requeue(report["id"], datetime.now(UTC)) for report in store.worklist.reports(row["case_id"])
        )
        if not requeued and not store.queue.retry(row["case_id"]):
            raise NodeError(
                f"case {row['case_id']} is {row['stage']}: it has not ended yet, so there is nothing to retry"
            )
        for bell in (NODE_PROCESS, WORKER_PROCESS):
            wake(checked.storage.directory, bell)
        pending = counted(requeued, "delivery is", "deliveries are")
        said = f"{pending} pending again" if requeued else "waits to be analysed again as a new revision"
        console.print(f"case {row['case_id']}: {said}", highlight=False)
