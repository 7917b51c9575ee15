"""Notifications to a real MLLP listener and to an HTTP server that takes FHIR: what they get, and what their answers mean."""

from dataclasses import replace
from pathlib import Path

import hl7
import pytest
from fhir.resources.R4B.diagnosticreport import DiagnosticReport

from node.results.alert import Alert, oru_of
from tests.support.builders import START, FakeClock
from tests.support.receivers import PATIENT, Listener, Make, a_round, error_of, listener, made, positive, rows
from tests.support.web_server import Said, ServerFactory, web

__all__ = ["listener", "made", "web"]


def test_an_oru_is_acknowledged_and_has_the_result_without_the_patient(
    made: Make, listener: Listener, clock: FakeClock
) -> None:
    context = made({"name": "ris", "kind": "hl7", "url": f"mllp://127.0.0.1:{listener.port}"})
    positive(context, clock)
    assert a_round(context) == 1
    [message] = listener.messages
    assert str(message.segment("MSH")[9]) == "ORU^R01^ORU_R01"
    assert next(str(segment[5]) for segment in message.segments("OBX") if str(segment[2]) == "NM") == "0.900"
    assert str(message.segment("OBR")[25]) == "P"
    assert [word for word in PATIENT if word in str(message)] == ["20261123"], "the day on which it is sent"


def test_an_oru_with_patient_data_has_pid_and_accession_escaped(
    made: Make, listener: Listener, clock: FakeClock
) -> None:
    context = made({"name": "ris", "kind": "hl7", "url": f"mllp://127.0.0.1:{listener.port}", "patient_data": True})
    positive(context, clock, accession_number="A^7|8")
    assert a_round(context) == 1
    [message] = listener.messages
    assert str(message.segment("PID")[5]) == "Doe^Jane"
    assert str(message.segment("OBR")[18]) == "A\\S\\7\\F\\8"
    assert hl7.parse(str(message)).segment("PID")[3] is not None


@pytest.mark.parametrize(("code", "stage"), [("AE", "pending"), ("AR", "dead")])
def test_an_acknowledgement_that_is_none_is_tried_again_or_a_dead_letter(
    made: Make, listener: Listener, clock: FakeClock, code: str, stage: str
) -> None:
    listener.code = code
    context = made({"name": "ris", "kind": "hl7", "url": f"mllp://127.0.0.1:{listener.port}"})
    positive(context, clock)
    assert a_round(context) == 0
    assert [row[1] for row in rows(context)] == [stage]
    assert code in error_of(context)


def test_a_fhir_server_gets_a_valid_report_on_condition_that_it_has_none(
    made: Make, web: ServerFactory, clock: FakeClock, tmp_path: Path
) -> None:
    server = web(Said(201))
    (tmp_path / "token").write_text("secret\n")
    target = {"name": "fhir", "kind": "fhir", "url": server.url, "token_file": tmp_path / "token"}
    context = made(target)
    positive(context, clock)
    assert a_round(context) == 1
    [asked] = server.asked
    assert asked.path.endswith("/DiagnosticReport")
    assert asked.headers["Authorization"] == "Bearer secret"
    report = DiagnosticReport.model_validate_json(asked.body)
    [identifier] = report.identifier or []
    assert asked.headers["If-None-Exist"] == f"identifier={identifier.system}|{identifier.value}"
    assert (report.status, report.subject) == ("preliminary", None)
    assert not [word for word in PATIENT if word in asked.body.decode()]


def test_a_fhir_report_with_patient_data_is_valid_too(made: Make, web: ServerFactory, clock: FakeClock) -> None:
    server = web(Said(200))
    context = made({"name": "fhir", "kind": "fhir", "url": server.url, "patient_data": True})
    positive(context, clock)
    assert a_round(context) == 1
    report = DiagnosticReport.model_validate_json(server.asked[0].body).model_dump()
    assert report["subject"]["identifier"]["value"] == "P-0001"
    assert report["basedOn"][0]["identifier"]["value"] == "A-77"


def test_a_report_has_one_identifier_at_every_attempt_and_another_node_has_another(
    made: Make, web: ServerFactory, clock: FakeClock
) -> None:
    server = web(Said(503))
    context = made({"name": "fhir", "kind": "fhir", "url": server.url})
    positive(context, clock)
    other = context.config.node.model_copy(update={"ae_title": "OTHER"})
    for each in (context, context, replace(context, config=context.config.model_copy(update={"node": other}))):
        a_round(each)
        clock.advance(60)
    first, second, of_other = (asked.headers["If-None-Exist"] for asked in server.asked)
    assert first == second != of_other


def test_who_has_no_number_and_no_name_is_left_out_of_fhir_which_knows_no_empty_text(
    made: Make, web: ServerFactory, clock: FakeClock
) -> None:
    server = web(Said(200))
    context = made({"name": "fhir", "kind": "fhir", "url": server.url, "patient_data": True})
    positive(context, clock, patient_id="", patient_name="", accession_number="")
    assert a_round(context) == 1
    assert DiagnosticReport.model_validate_json(server.asked[0].body).subject is None
    assert b'""' not in server.asked[0].body


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Doe^Jane^Q^Dr.^III", "Doe^Jane^Q^III^Dr."), ("=山田^太郎", "山田^太郎"), ("", ""), ("A|B^C", "A\\F\\B^C")],
)
def test_a_name_has_hl7s_order_and_its_first_representation_that_says_anything(name: str, expected: str) -> None:
    row = {"case_id": 1, "revision": 1, "patient_name": name, "patient_id": "7", "issuer_of_patient_id": "SITE"}
    row |= {"accession_number": "", "outcome": "positive", "p_present": 0.9, "top_location": "", "diameter_mm": None}
    [pid] = [line for line in oru_of(Alert("W1", START, "", (), row, True), "WILLIS").split("\r") if line[:3] == "PID"]
    assert pid == f"PID|1||7^^^SITE||{expected}"


@pytest.mark.parametrize(("status", "stage"), [(503, "pending"), (401, "pending"), (400, "dead"), (302, "dead")])
def test_what_a_fhir_server_answers_decides_whether_it_is_tried_again(
    made: Make, web: ServerFactory, clock: FakeClock, status: int, stage: str
) -> None:
    context = made({"name": "fhir", "kind": "fhir", "url": web(Said(status)).url})
    positive(context, clock)
    assert a_round(context) == 0
    assert [row[1] for row in rows(context)] == [stage]
    assert f"HTTP {status}" in error_of(context)
