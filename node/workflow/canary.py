"""A synthetic series goes the way of every series, from this node to itself, and its answer is compared with what is painted.

Sent over DIMSE to our own port; known by its UID, which the database has before the first slice comes; in no list, no
statistics, no delivery; analysed when no patient's series waits; removed when it has ended, whatever ended meanwhile.
"""

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID

from node.config.peer import Peer
from node.config.sections import Config
from node.dicom.commitment import new_transaction_uid as new_uid
from node.errors import NodeError, Unavailable, safe_message
from node.rules.canary import Painted, late_by, trouble_of
from node.runtime import log
from node.runtime.job import still_working
from node.runtime.processes import has_died
from node.scu.dimse import our_entity
from node.scu.storage_scu import send_files
from node.workflow.context import Context
from node.workflow.retention import remove
from storage.queries import health
from storage.queries.canaries import CanaryRun
from storage.queries.retention import Why
from storage.stages import Stage

FOLDER = "canary"
PATIENT_NAME, PATIENT_ID = "WILLIS^CANARY", "WILLIS-CANARY"
_AT_WORK = (Stage.RECEIVING, Stage.READY, Stage.ANALYSING)


def resume(context: Context) -> None:
    """What the node's last run had sent when it ended says nothing of how long an answer takes."""
    try:
        run = context.store.canaries.last()
        if run is not None and run.ended_at is None:
            context.store.canaries.end(run, context.clock())
    except Exception as error:  # noqa: BLE001  the edge: where the database is away, it is late
        log.get().error("canary_failed", error=safe_message(error))


def look_after(context: Context) -> None:
    """What the canary calls for now is done: it is judged, removed, or the next one sent.  Safe to repeat and to be killed in."""
    canaries, now = context.store.canaries, context.clock()
    run = canaries.last()
    if run is not None and run.ended_at is None:
        _judge(context, run, now)
        return
    left = [case for case in canaries.left() if context.store.retention.is_for_us(case)]
    for case in left:
        remove(context, case, Why.CANARY, now)
    period = timedelta(minutes=context.config.canary.minutes)
    is_due = run is None or not timedelta() <= now - run.sent_at < period
    if is_due and not left and not canaries.real_ones_in_work() and _is_heard(context):
        _send(context)


def _is_heard(context: Context) -> bool:
    """Whether a receiver has said that it listens, and is still there; where none does, health says that."""
    processes = health.processes(context.store.transactions.reading_plainly)
    return any(each.role == "receive" and not has_died(f"{each.host}:{each.pid}") for each in processes)


def _judge(context: Context, run: CanaryRun, now: datetime) -> None:
    """The run has ended, where its answer is there or late; late for patients' series it may be."""
    canaries, late_seconds = context.store.canaries, context.config.canary.late_seconds
    answer, seconds = canaries.answer(run), (now - run.sent_at).total_seconds()
    if answer is not None and answer.stage not in _AT_WORK:
        seconds = ((answer.ended_at or now) - run.sent_at).total_seconds()
        wrong = trouble_of(_painted(context.config), answer.outcome, answer.reason, answer.lesions)
        _end(context, run, wrong or late_by(seconds, late_seconds), seconds)
    elif canaries.real_ones_in_work():
        canaries.end(run, now)  # it gives way, and says nothing
    elif seconds > late_seconds:
        where = "nothing of it was received" if answer is None else f"it is {answer.stage.value}"
        _end(context, run, f"no answer after {seconds:.0f} s: {where}")


def _end(context: Context, run: CanaryRun, trouble: str, seconds: float | None = None) -> None:
    context.store.canaries.end(run, context.clock(), trouble, seconds)
    if trouble:
        log.get().error("canary_wrong", error=trouble, seconds=seconds)
    else:
        log.get().info("canary_answered", seconds=seconds)


def _send(context: Context) -> None:
    """The series was sent under UIDs of its own, or that is the trouble."""
    config, series_uid, not_painted, refused = context.config, new_uid(context.random), "", ""
    try:
        _paint(context)
    except (NodeError, OSError) as error:
        if context.stopping.is_set():
            return
        not_painted = f"it could not be painted: {safe_message(error)}"
    context.store.canaries.begin(series_uid, context.clock())
    run = context.store.canaries.last()
    assert run is not None
    if not_painted:
        _end(context, run, not_painted)
        return
    sending = config.storage.directory / FOLDER / "sending"
    try:
        paths = _stamped(context, sending, series_uid)
        for sent in send_files(our_entity(config.node), itself(config), paths):
            still_working()
            refused = refused or sent.error
            if context.stopping.is_set():
                return
    except (NodeError, OSError) as failure:
        refused = safe_message(failure)
    finally:
        shutil.rmtree(sending, ignore_errors=True)
    if refused:
        _end(context, run, f"it was not received: {refused}")


def itself(config: Config) -> Peer:
    """This node as a peer: at the address where it listens, by TLS where it listens with that alone."""
    node = config.node
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(node.host, node.host)  # noqa: S104  compared, not bound
    if node.tls is not None and node.tls.required:
        return Peer(ae_title=node.ae_title, host=host, port=node.tls.port, tls=True)
    return Peer(ae_title=node.ae_title, host=host, port=node.port)


def _stamped(context: Context, folder: Path, series_uid: str) -> list[Path]:
    """The painted slices with UIDs that were never used before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    study_uid, frame_uid, paths = new_uid(context.random), new_uid(context.random), list[Path]()
    for painted in sorted(_series(context.config).glob("*.dcm")):
        still_working()
        ds = dcmread(painted)
        ds.PatientName, ds.PatientID, ds.AccessionNumber = PATIENT_NAME, PATIENT_ID, ""
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study_uid, series_uid, frame_uid
        ds.SOPInstanceUID = UID(new_uid(context.random))
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        paths.append(folder / painted.name)
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def _painted(config: Config) -> Painted:
    found = json.loads((_series(config) / "painted.json").read_text("utf-8"))
    x, y, z = found["centre_lps_mm"]
    return Painted(found["location"], (x, y, z))


def _paint(context: Context) -> None:
    """The series is there, painted once for the folder, behind everything else that this host does.  Raises Unavailable."""
    if _series(context.config).exists():
        return
    _series(context.config).parent.mkdir(parents=True, exist_ok=True)
    log.get().info("canary_is_painted")
    painter = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "training.canary", str(_series(context.config))], stdin=subprocess.DEVNULL
    )
    os.setpriority(os.PRIO_PROCESS, painter.pid, 19)
    try:
        while painter.poll() is None and not context.stopping.wait(0.5):
            still_working()
    finally:
        painter.kill()
        painter.wait()
    if not _series(context.config).exists():
        raise Unavailable("the canary was not painted; look at the log")


def _series(config: Config) -> Path:
    return config.storage.directory / FOLDER / "series"
