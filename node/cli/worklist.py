"""What is asked of a node and changes nothing: worklist, show, status."""

import csv
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from ai.wording import counted
from node.cli.app import ConfigOption, JsonOption, app, console, one_line_errors, settings
from node.errors import NodeError
from node.rules.reasons import explained
from node.scp.rejections import last_rejections
from storage.files.instances import Files
from storage.queries.worklist import Clock, Row, Worklist
from storage.reader import open_worklist
from storage.stages import DeliveryStage, Stage

_OUTCOME_STYLE = {"positive": "bold red", "not_analysed": "yellow", "limited": "yellow", "negative": "green"}
_CLOCK_PARTS = ("settle", "wait", "volume", "inference", "report", "delivery", "total")
CaseArgument = Annotated[str, typer.Argument(help="Case number, Series Instance UID or report UID.")]


@app.command(epilog="Example: willis worklist --json | jq '.[] | select(.outcome == \"positive\")'")
def worklist(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep the table up to date until Ctrl-C.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows.")] = 100,
) -> None:
    """List the cases, the most urgent first."""
    with one_line_errors():
        cases = open_worklist(settings(config).storage.url)
        if as_json:
            sys.stdout.write(json.dumps(cases.rows(limit), default=str, ensure_ascii=False, indent=1) + "\n")
        elif as_csv:
            _write_csv(cases.rows(limit))
        elif watch:
            _watch(lambda: worklist_table(cases.rows(limit)))
        else:
            console.print(worklist_table(cases.rows(limit)))


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


_HEADINGS = ("Case", "Patient", "Accession", "Series", "Slices", "State", "P", "Where", "mm", "Report", "Last slice")


def worklist_table(rows: Iterable[Row]) -> Table:
    """The rows for a terminal."""
    table = Table(title="Willis worklist · research use, not a medical device", title_style="")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right" if heading in ("Case", "Slices", "P", "mm") else "left")
    for row in rows:
        state = row["outcome"] if row["outcome"] and row["stage"] not in ("ready", "analysing") else row["stage"]
        label = ", ".join(filter(None, (state, "alert" if row["notify"] else "", _limited(row))))
        label = f"{label}: {row['reason']}" if row["reason"] else label
        table.add_row(
            str(row["case_id"]),
            row["patient_name"] or row["patient_id"],
            row["accession_number"],
            row["series_description"],
            str(row["instance_count"]),
            label.replace("_", " "),
            _number(row["p_present"], 2),
            row["top_location"] or "",
            _number(row["diameter_mm"], 1),
            row["delivery"] or "",
            f"{row['last_instance_at']:%Y-%m-%d %H:%M:%S}",
            style=_style(row),
        )
    return table


def _limited(row: Row) -> str:
    return f"limited: {row['limits']}" if row["limits"] else ""


def _style(row: Row) -> str:
    """A negative that the images limit is not green."""
    outcome = "limited" if row["outcome"] == "negative" and row["limits"] else row["outcome"]
    return _OUTCOME_STYLE.get(outcome or "", "")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


@app.command(epilog="Example: willis show 7")
def show(case: CaseArgument, config: ConfigOption = None) -> None:
    """Show everything known of one case."""
    with one_line_errors():
        cases = open_worklist(settings(config).storage.url)
        row = case_called(cases, case)
        console.print(_details(row))
        if row["lesions"]:
            console.print(_lesions(row["lesions"]))
        for report in cases.reports(row["case_id"]):
            console.print(f"report of revision {report['revision']}: {report['outcome']}, {report['sop_instance_uid']}")
        for delivery in cases.deliveries(row["case_id"]):
            error = f", last error: {delivery.last_error}" if delivery.last_error else ""
            state = f"{delivery.stage} after {counted(delivery.attempts, 'attempt')}{error}"
            console.print(f"delivery of the {delivery.kind} to {delivery.destination}: {state}")


def case_called(cases: Worklist, case: str) -> Row:
    """The row of the case.  Raises NodeError when there is none."""
    row = cases.case(case)
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


def _lesions(lesions: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="Findings, unverified")
    for heading in ("Location", "Probability", "Diameter mm", "Centre LPS mm"):
        table.add_column(heading)
    for lesion in lesions:
        centre = ", ".join(f"{value:.1f}" for value in lesion["centre_lps_mm"])
        table.add_row(lesion["location"], _number(lesion["probability"], 2), _number(lesion["diameter_mm"], 1), centre)
    return table


@app.command(epilog="Example: willis status")
def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show queues, disk, last errors, and how long cases took from last slice to accepted report."""
    with one_line_errors():
        storage = settings(config).storage
        now, state = datetime.now(UTC), open_worklist(storage.url).status()
        values: dict[str, Any] = {
            "series": {stage.value: state.stages.get(stage, 0) for stage in Stage},
            "deliveries": {stage.value: state.deliveries.get(stage, 0) for stage in DeliveryStage},
            "oldest_ready_seconds": _age(state.oldest_ready_at, now),
            "oldest_pending_delivery_seconds": _age(state.oldest_pending_at, now),
            "free_gib": round(Files(storage.directory).free_bytes() / 2**30, 1),
            "last_errors": [f"{at:%Y-%m-%d %H:%M:%S} {error}" for at, error in state.errors],
            "more_may_not_have_come": [f"{at:%Y-%m-%d %H:%M:%S} {what}" for at, what in state.shortfalls],
            "last_rejected_callers": [each.line for each in last_rejections(storage.directory)],
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
    import statistics  # which imports fractions, decimal and random

    found = {}
    for part in _CLOCK_PARTS if clocks else ():
        values = [getattr(clock, part) for clock in clocks]
        p95 = statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
        found[part] = {"median": round(statistics.median(values), 2), "p95": round(p95, 2)}
    return found


def _status_table(values: Mapping[str, Any]) -> Table:
    table = Table(show_header=False, box=None)
    for key, value in values.items():
        if isinstance(value, dict):
            text = "   ".join(f"{name} {_text(part)}" for name, part in value.items()) or "none yet"
        else:
            text = "\n".join(value) or "none" if isinstance(value, list) else _text(value)
        table.add_row(key.replace("_", " "), text)
    return table


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['median']} (95 %: {value['p95']})"
    return "none" if value is None else str(value)
