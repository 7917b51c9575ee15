"""What is asked of a node and changes nothing: worklist, show, status."""

import csv
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.box import HEAVY_HEAD, SIMPLE_HEAD
from rich.live import Live
from rich.table import Table

from ai.locations import Location
from ai.wording import counted
from node.cli.app import (
    ConfigOption,
    JsonOption,
    app,
    console,
    one_line_errors,
    one_of,
    reader_may_leave,
    say,
    settings,
)
from node.errors import NodeError, safe_message
from node.rules.reasons import explained
from node.scp.rejections import last_rejections
from storage.queries.worklist import Clock, Row, Status, Worklist, is_empty
from storage.reader import open_worklist
from storage.stages import DeliveryStage, Stage

if TYPE_CHECKING:
    from node.rules.health import Health
    from node.rules.health_facts import Facts, ProcessFact

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
        one_of(json=as_json, csv=as_csv, watch=watch)
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
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def _cell(value: Any) -> Any:
    """A value as other programs read it: lists as JSON, times as ISO 8601."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return value.isoformat() if isinstance(value, datetime) else value


def _watch(table: Callable[[], Table], seconds: float = 1.0) -> None:
    with Live(table(), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(seconds)
                live.update(table(), refresh=True)
        except KeyboardInterrupt:
            return


def worklist_table(rows: Iterable[Row]) -> Table:
    """The rows for a terminal; with fewer and narrower columns where that is narrow, so that none is cut."""
    is_narrow = console.width < WIDE
    table = Table(
        title="Willis worklist · research use, not a medical device",
        title_style="",
        box=SIMPLE_HEAD if is_narrow else HEAVY_HEAD,
        padding=(0, 1, 0, 0) if is_narrow else (0, 1),
        pad_edge=not is_narrow,
    )
    columns = [column for column in _COLUMNS if not (is_narrow and column.heading in _ONLY_WHERE_WIDE)]
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.is_number else "left",
            no_wrap=column.is_number or column.heading in ("Report", _LAST_SLICE),
            overflow="fold",
        )
    for row in rows:
        cells = [column.text(row, is_narrow) for column in columns]
        table.add_row(*cells, style=_style(row))
    return table


class _Column(NamedTuple):
    """One column: its heading, what a row has in it (in a narrow table: the flag), and whether that is a number."""

    heading: str
    text: Callable[[Row, bool], str]
    is_number: bool = False


def _state(row: Row) -> str:
    """Where the case stands, whether it is worth an alert, what limits the answer, and of which revision; the first is not named."""
    stage = "empty, to be sent again" if is_empty(row) else row["stage"]
    state = row["outcome"] if row["outcome"] and row["stage"] not in ("ready", "analysing") else stage
    limited = f"limited: {row['limits']}" if row["limits"] else ""
    label = ", ".join(filter(None, (state, "alert" if row["notify"] else "", limited)))
    label = f"{label}: {row['reason']}" if row["reason"] else label
    revision = f" (revision {row['revision']})" if row["revision"] > 1 else ""
    return label.replace("_", " ") + revision


def _where(location: str | None, is_narrow: bool) -> str:
    """The location; in a narrow table as short as the option of `willis phantom` has it."""
    if not location or not is_narrow or location not in set(Location):
        return location or ""
    return Location(location).name.lower().replace("_", " ")


def _last_slice(row: Row, is_narrow: bool) -> str:
    return f"{row['last_instance_at']:{'%m-%d %H:%M' if is_narrow else '%Y-%m-%d %H:%M:%S'}}"


_LAST_SLICE = "Last slice\nUTC"
_COLUMNS = (
    _Column("Case", lambda row, _: str(row["case_id"]), True),
    _Column("Patient", lambda row, _: row["patient_name"] or row["patient_id"]),
    _Column("Accession", lambda row, _: row["accession_number"]),
    _Column("Series", lambda row, _: row["series_description"]),
    _Column("Slices", lambda row, _: str(row["instance_count"]), True),
    _Column("State", lambda row, _: _state(row)),
    _Column("P", lambda row, _: _number(row["p_present"], 2), True),
    _Column("Where", lambda row, is_narrow: _where(row["top_location"], is_narrow)),
    _Column("mm", lambda row, _: _number(row["diameter_mm"], 1), True),
    _Column("Report", lambda row, _: row["delivery"] or ""),
    _Column(_LAST_SLICE, _last_slice),
)
"""P is the probability that there is any aneurysm; Where and mm are those of the most probable finding."""
_ONLY_WHERE_WIDE = ("Accession", "Series", "Slices")
WIDE = 130
"""From so many characters a line on, every column has room."""


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
            say(f"report of revision {report['revision']}: {report['outcome']}, {report['sop_instance_uid']}")
        for delivery in cases.deliveries(row["case_id"]):
            error = f", last error: {delivery.last_error}" if delivery.last_error else ""
            state = f"{delivery.stage} after {counted(delivery.attempts, 'attempt')}{error}"
            say(f"delivery of the {delivery.kind} of revision {delivery.revision} to {delivery.destination}: {state}")


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
            table.add_row(_ANY_ANEURYSM.get(key, key), str(value))
    if row["reason"]:
        table.add_row("that is", explained(row["reason"]))
    return table


_ANY_ANEURYSM = {"p_present": "p_present (any aneurysm in the scan)"} | {
    f"p_{location.name.lower()}": f"p_{location.name.lower()} (any aneurysm there)" for location in Location
}
"""The 14 probabilities are of the scan; the one of a finding says how sure that finding is, and is another one."""


def _lesions(lesions: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="Findings, unverified")
    for heading in ("Location", "P of this finding", "Diameter mm", "Centre LPS mm"):
        table.add_column(heading)
    for lesion in lesions:
        centre = ", ".join(f"{value:.1f}" for value in lesion["centre_lps_mm"])
        table.add_row(lesion["location"], _number(lesion["probability"], 2), _number(lesion["diameter_mm"], 1), centre)
    return table


@app.command(epilog="Example: willis status")
def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say whether the node is ok, degraded or down, and why; then queues, disk, last errors and how long cases took.

    Exit status: 0 ok, 1 degraded, 2 down (or the configuration cannot be used).
    """
    from node.rules.health import judge  # which `worklist` and `show` start faster without
    from node.workflow.health import facts_of, readable

    with one_line_errors():
        checked, now = settings(config), datetime.now(UTC)
        facts, queues = facts_of(checked, now), dict[str, Any]()
        try:
            if not facts.database_error and (reading := readable(checked.storage.url)):
                queues = _queues(Worklist(reading).status(), now)
        except Exception as error:  # noqa: BLE001  the edge: gone since it was asked for the facts
            facts = replace(facts, database_error=safe_message(error))
        health = judge(facts)
        values: dict[str, Any] = {
            "health": health.verdict.value,
            "reasons": [vars(reason) for reason in health.reasons],
            "processes": [_process(each, now) for each in facts.processes],
            "free_gib": None if facts.free_bytes is None else round(facts.free_bytes / 2**30, 1),
            **_uploads(facts),
            "last_rejected_callers": [each.line for each in last_rejections(checked.storage.directory)],
            **queues,
        }
        with reader_may_leave():
            _print_status(health, values, as_json)
        raise typer.Exit(health.verdict.exit_status)


def _uploads(facts: "Facts") -> dict[str, Any]:
    """How many files wait for the object store in which folder; nothing where none do."""
    return (
        {"waiting_for_the_object_store": {each.folder: each.number for each in facts.uploads}} if facts.uploads else {}
    )


def _print_status(health: "Health", values: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(values, indent=1) + "\n")
        return
    console.print(f"health: {health.verdict}", style=_VERDICT_STYLE[health.verdict])
    for reason in health.reasons:
        say(f"  {reason.verdict}: {reason.message}")
    console.print(_status_table({key: value for key, value in values.items() if key not in ("health", "reasons")}))


_VERDICT_STYLE = {"ok": "green", "degraded": "yellow", "down": "bold red"}


def _process(process: "ProcessFact", now: datetime) -> str:
    """One line: which process, where, and what it says of itself."""
    model = f", model {process.details['model']} on {process.details['device']}" if "model" in process.details else ""
    seen = "is gone" if process.is_gone else f"seen {max(0.0, (now - process.beat_at).total_seconds()):.0f} s ago"
    return f"{process.role} (pid {process.pid} on {process.host}) {seen}{model}"


def _queues(state: Status, now: datetime) -> dict[str, Any]:
    return {
        "series": {stage.value: state.stages.get(stage, 0) for stage in Stage} | {"empty": state.empty},
        "deliveries": {stage.value: state.deliveries.get(stage, 0) for stage in DeliveryStage},
        "oldest_ready_seconds": _age(state.oldest_ready_at, now),
        "oldest_pending_delivery_seconds": _age(state.oldest_pending_at, now),
        "last_errors": [f"{at:%Y-%m-%d %H:%M:%S} UTC {error}" for at, error in state.errors],
        "more_may_not_have_come": [f"{at:%Y-%m-%d %H:%M:%S} UTC {what}" for at, what in state.shortfalls],
        "last_slice_to_report_seconds": percentiles(state.clocks),
    }


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
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
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
