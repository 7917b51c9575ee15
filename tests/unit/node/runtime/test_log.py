import json
import logging
import subprocess
import sys
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

import pytest

from node.runtime import log
from storage.stages import Stage

SECRET = "Doe^Jane"


pytestmark = pytest.mark.usefixtures("logging_restored")


def line(capsys: pytest.CaptureFixture[str], **values: Any) -> dict[str, Any]:
    """The one line that is logged for these values."""
    log.configure("json", "debug")
    log.get().info("happened", **values)
    captured = capsys.readouterr()
    assert captured.out == ""
    [text] = captured.err.splitlines()
    entry: dict[str, Any] = json.loads(text)
    return entry


def test_allowed_keys_pass_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    entry = line(capsys, case=7, seconds=1.5, reason="gap", calling_ae="PACS", expected=None)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {
        "event": "happened", "level": "info", "case": 7, "seconds": 1.5, "reason": "gap", "calling_ae": "PACS",
        "expected": None,
    }  # fmt: skip


def test_forbidden_keys_are_dropped_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    entry = line(capsys, patient_name=SECRET, dataset={"PatientID": SECRET}, case=7)
    assert entry["dropped_keys"] == "dataset,patient_name"
    assert entry["case"] == 7
    assert SECRET not in json.dumps(entry)


@pytest.mark.parametrize("key", ["exc_info", "stack_info"])
def test_tracebacks_do_not_pass(capsys: pytest.CaptureFixture[str], key: str) -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        entry = line(capsys, **{key: True})
    assert SECRET not in json.dumps(entry)
    assert entry["dropped_keys"] == key


def test_keys_that_were_bound_are_judged_too(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    log.get().bind(patient_id=SECRET, case=3).warning("happened")
    entry = json.loads(capsys.readouterr().err)
    assert (entry["case"], entry["dropped_keys"]) == (3, "patient_id")


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (SECRET, "<str>"),
        ("Döe Jane", "<str>"),
        ("line\nbreak", "<str>"),
        ("x" * 501, "<str>"),
        ('say "x"', "<str>"),
        ("山田", "<str>"),
        (b"bytes", "<bytes>"),
        ({"a": 1}, "<dict>"),
        ([1], "<list>"),
        (ValueError(SECRET), "<ValueError>"),
        (Path("/tmp/x"), "<PosixPath>"),
        (object(), "<object>"),
        (Stage.READY, "ready"),
        (Colour.RED, "red"),
        (True, True),
        (None, None),
        (3, 3),
        (0.5, 0.5),
        ("PACS at 10.0.0.7:104", "PACS at 10.0.0.7:104"),
        ("", ""),
    ],
)
def test_a_value_that_is_no_plain_word_or_number_is_replaced_by_its_type(
    capsys: pytest.CaptureFixture[str], value: Any, shown: Any
) -> None:
    assert line(capsys, error=value)["error"] == shown


def test_the_event_itself_must_be_plain(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    log.get().info(SECRET)
    assert json.loads(capsys.readouterr().err)["event"] == "<str>"


def test_an_enumeration_whose_value_is_odd_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    class Odd(StrEnum):
        NAME = "Doe^Jane"

    assert line(capsys, reason=Odd.NAME)["reason"] == "<str>"


@pytest.mark.parametrize(
    "message",
    [
        "[peers.PACS] is not configured",
        "the peer does not accept Comprehensive 3D SR Storage in the file's transfer syntax",
        "SOPInstanceUID is known with other content; first kept",
        "SOPInstanceUID differs from the command's",
        "reports/ab/0123456789abcdef0123456789abcdef-0123456789abcdef.dcm has 5 bytes, the database says 6",
        "cannot store now: OperationalError",
        (
            "the database postgresql+psycopg://willis:***@/willis?host=%2Frun%2Fpg-a,pg-b&target_session_attrs=read-write cannot be "
            "opened: no server listens there; start the server, or correct host and port in [storage] database_url"
        ),
        "the database postgresql+psycopg://willis@db/willis?password=***&sslpassword=*** cannot be opened: no server listens there",
        "MY_16_CHAR_TITLE at pacs-server-01.radiology.hospital.example:11112 rejected the association",
        (
            "MY_16_CHAR_TITLE answered C-MOVE with 0xA801: it does not know the destination MY_16_CHAR_TITLE; configure this AE title with "
            "our host and port there, or set retrieve = 'get' for this peer"
        ),
        "PACS answered C-MOVE with 0xA702: it may not reach WILLIS; does `willis serve` run where it sends to?",
        (
            "PACS at https://pacs-server-01.radiology.hospital.example:8443/dicom-web did not answer with DICOM JSON; is url that of its "
            "DICOMweb service?"
        ),
        (
            "[node.tls] certificate = '/etc/willis/node.pem', key = '/etc/willis/node.key': this key is not the one that the "
            "certificate was made for; name the key of its request, or have a new certificate made for this key"
        ),
        "the database postgresql+psycopg://willis:***@db/willis cannot be opened: no server listens there; start the server",
    ],
)
def test_our_own_messages_can_be_read(capsys: pytest.CaptureFixture[str], message: str) -> None:
    assert line(capsys, error=message)["error"] == message


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_only_the_wanted_levels_are_written(capsys: pytest.CaptureFixture[str], level: str, count: int) -> None:
    log.configure("json", level)
    logger = log.get()
    logger.debug("a")
    logger.info("b")
    logger.warning("c")
    logger.error("d")
    assert len(capsys.readouterr().err.splitlines()) == count


def test_the_console_form_is_a_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("console")
    log.get().info("series_ready", case=7, patient_name=SECRET)
    [text] = capsys.readouterr().err.splitlines()
    assert "series_ready" in text
    assert "case=7" in text
    assert SECRET not in text
    assert "\x1b" not in text


LIBRARIES = (
    "pynetdicom",
    "pynetdicom.acse",
    "pydicom",
    "apscheduler.scheduler",
    "sqlalchemy.engine",
    "highdicom",
    "any",
)


@pytest.mark.parametrize("library", LIBRARIES)
def test_other_libraries_print_nothing(capsys: pytest.CaptureFixture[str], library: str) -> None:
    log.configure("json", "debug")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger(library).log(level, "Patient's Name: %s", SECRET)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_librarys_warning_prints_nothing() -> None:
    # In a process of its own: pytest catches warnings before they can be printed.
    code = (
        "import warnings; from node.runtime import log; log.configure();"
        f"warnings.warn('Invalid value for VR UI: {SECRET}'); log.get().info('done')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert SECRET not in done.stdout + done.stderr
    assert "done" in done.stderr
