"""The table through `willis serve`, with real senders, in one lifetime of the node, beside a simulated PACS.

What stands in for something: the network (`tests.corpus.network`) and the PACS that receives the reports.  Receiver,
rules, database (SQLite), worker, reports and deliveries are processes as they are shipped.  The node runs in Tokyo:
the reports' times must be those of its wall clocks.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx
from pydicom import Dataset, dcmread

from storage.queries.worklist import Row
from tests.corpus import stub_node
from tests.corpus.senders import Sender, all_senders
from tests.corpus.situation import End, Sending, Situation, end_of, of_its_own, study_root
from tests.support.dicom_factory import save
from tests.support.reports import named
from tests.support.running import RunningNode, wait_until

ZONE = "Asia/Tokyo"
LONGEST_SECONDS = 300.0
BY_EVERY_SENDER = frozenset(
    {
        "an angiography with an aneurysm",
        "an angiography without an aneurysm",
        "a head without contrast",
        "slices 5 mm apart",
        "another kernel of the same pass",
        "two phases at the same places in one series",
        "every kind of stray among the slices",
        "two Enhanced CT instances with an aneurysm",
        "a late slice fills the gap",
        "no patient",
        "a whole study with dose report, key objects, presentation state, raw data, PDF and text",
    }
)
"""At least one of every kind of end; the other situations are sent by one sender each, in turn."""


class StubNode(RunningNode):
    """The node whose network is the stand-in."""

    module = stub_node.MODULE


@dataclass
class Play:
    """One situation sent by one sender."""

    number: int
    situation: Situation
    sender: Sender
    patients: set[str] = field(default_factory=set)
    instances: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """SOP Instance UIDs that were sent so far, by series."""
    fault: str = ""
    """Why the sender could not send it."""
    begun: float = 0.0
    end: End | None = None

    def waves(self) -> Iterator[list[Sending]]:
        """What is sent before what was sent has ended."""
        wave: list[Sending] = []
        for sending in self.situation.made():
            of_its_own(sending.instances, self.number)
            wave.append(sending)
            if sending.then_ends:
                yield wave
                wave = []
        yield wave


def plan(situations: Sequence[Situation], senders: Sequence[Sender]) -> list[Play]:
    """Who sends what: each sender the chosen situations, and every other one a sender that can, in turn."""
    plays: list[Play] = []
    turn = 0
    for situation in situations:
        able = [each for each in senders if each.can_abort or not any(sending.aborted for sending in situation.made())]
        if situation.name not in BY_EVERY_SENDER:
            able = [able[turn % len(able)]]
            turn += 1
        plays += [Play(0, situation, sender) for sender in able]
    for number, each in enumerate(plays):
        each.number = 100 + number
    return plays


def play(folder: Path, situations: Sequence[Situation]) -> list[Play]:
    """Every situation has been sent and has ended."""
    os.environ["TZ"], before = ZONE, os.environ.get("TZ")
    node = StubNode(
        folder,
        completion__quiet_seconds="3",
        eligibility__minimum_slices="20",
        eligibility__sibling_wait_seconds="3",
        peers__PACS__answers_queries="true",
    )
    try:
        with ExitStack() as stack:
            stack.callback(node.close)
            node.start()
            senders = all_senders(folder / "orthanc", node.address, stack)
            plays = plan(situations, senders)
            _play_all(node, folder, plays)
            return plays
    finally:
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before


def _play_all(node: RunningNode, folder: Path, plays: Sequence[Play]) -> None:
    unfinished = {play.number: play.waves() for play in plays}
    while unfinished:
        waves = {number: wave for number, each in unfinished.items() if (wave := next(each, None)) is not None}
        unfinished = {number: unfinished[number] for number in waves}
        sent = [play for play in plays if play.number in waves]
        by_sender: dict[str, list[tuple[Play, list[Sending]]]] = defaultdict(list)
        for each in sent:
            by_sender[each.sender.name].append((each, waves[each.number]))
        with ThreadPoolExecutor(len(by_sender) or 1) as pool:
            list(pool.map(partial(_send_all, folder), by_sender.values()))
        _wait_for_ends(node, sent)
    worklist = node.store.worklist
    made = {each["sop_instance_uid"] for row in worklist.rows(10_000) for each in worklist.reports(row["case_id"])}
    assert set(node.pacs.requests) <= made, "the PACS holds what the worklist does not know of"


def _send_all(folder: Path, plays: Iterable[tuple[Play, list[Sending]]]) -> None:
    for each, wave in plays:
        _send(folder, each, wave)


def _send(folder: Path, play: Play, wave: Iterable[Sending]) -> None:
    play.begun = play.begun or time.monotonic()
    for sending in wave:
        part = folder / f"sent-{play.number}-{time.monotonic_ns()}"
        part.mkdir()
        for ds in sending.instances:
            ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            play.instances[ds.SeriesInstanceUID].add(ds.SOPInstanceUID)
            play.patients.add(ds.get("PatientID", ""))
        try:
            play.sender.send(save(sending.instances, part), sending.aborted)
        except (AssertionError, httpx.HTTPError) as error:
            play.fault = f"{play.sender.name} did not send it: {' '.join(str(error).split())[:200]}"


def _wait_for_ends(node: RunningNode, plays: Sequence[Play]) -> None:
    """Nothing of what was sent is under way; each play has its end."""

    def ended() -> bool:
        rows = _rows(node)
        return all(_has_ended(play, rows[play.number]) for play in plays)

    with suppress(AssertionError):  # what has not ended is shown as that
        wait_until(ended, LONGEST_SECONDS)
    rows = _rows(node)
    for play in plays:
        sent = list(play.instances)  # a sender may have an order of its own
        of_play = sorted(rows[play.number], key=lambda row: sent.index(row["series_instance_uid"]))
        play.end = End(
            (play.fault,) if play.fault else tuple(_end(row, node.pacs.folder, play) for row in of_play),
            tuple(str(row["detail"]) for row in of_play),
            time.monotonic() - play.begun,
        )


def _rows(node: RunningNode) -> dict[int, list[Row]]:
    rows: dict[int, list[Row]] = defaultdict(list)
    first = int(study_root(0).split(".")[2])
    for row in node.store.worklist.rows(10_000):
        rows[int(row["study_instance_uid"].split(".")[2]) - first].append(row)
    return rows


def _has_ended(play: Play, rows: Sequence[Row]) -> bool:
    if play.fault:
        return True
    came = {row["series_instance_uid"]: row["instance_count"] for row in rows}
    return came == {series: len(uids) for series, uids in play.instances.items()} and all(
        row["stage"] in ("reported", "set_aside", "failed")
        and (row["report_uid"] is None or row["delivery"] in ("delivered", "committed"))
        for row in rows
    )


def _end(row: Row, pacs: Path, play: Play) -> str:
    """As the worklist has it, and what the report in the PACS has else."""
    end = end_of(row)
    reports = [ds for path in pacs.glob(f"{row['report_uid']}.dcm") for ds in [dcmread(path)]]
    if row["report_uid"] is None:
        return end
    if not reports:
        return f"{end}, not in the PACS"
    faults = list(_faults(reports[0], row, play))
    return f"{end}, but its report: {', '.join(faults)}" if faults else end


def _faults(report: Dataset, row: Row, play: Play) -> Iterator[str]:
    if (said := verdict(report)) != end_of(row):
        yield said
    if report.StudyInstanceUID != row["study_instance_uid"] or report.PatientID.strip() not in {
        each.strip() for each in play.patients
    }:
        yield "another patient's"
    made = datetime.strptime(report.ContentDate + report.ContentTime[:6], "%Y%m%d%H%M%S").replace(tzinfo=ZoneInfo(ZONE))
    if abs(made - datetime.now(ZoneInfo(ZONE))) > timedelta(seconds=2 * LONGEST_SECONDS):
        yield f"made at {made}"


def verdict(report: Dataset) -> str:
    """What whoever reads the report alone takes from it, in the words of the table."""
    if report.CompletionFlag == "PARTIAL":
        return f"not_analysed: {report.CompletionFlagDescription.removeprefix('Not analysed: ')}"
    return "positive" if named(report, "125007") else "negative"
