"""A case's page over a real socket: masks, planes, thresholds, and the patient's earlier studies."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, update

from node.web.image_pages import key_of
from node.web.masks import masks_on
from node.web.wording import clock_time
from node.workflow import context as workflow
from node.workflow.reviews import send
from storage.database.schema import DeliveryRow, SeriesRow
from storage.errors import ObjectsAway
from storage.files.instances import Files
from storage.queries.retention import Why
from storage.records import Delivery
from storage.stages import Outcome
from storage.store import Store
from tests.integration.web_pages import with_images
from tests.support.builders import LEASE, FakeClock, claimed, finish, keep, reported
from tests.support.case_with_masks import drawn_head, with_masks
from tests.support.pages import Served, form_key_of, serving, web_context
from tests.support.reviewed import accept_one_and_reject_one, case_with_report, configuration


def test_masks_are_on_the_pixels_of_the_slices_that_the_segmentation_names(
    quick: Served, files: Files, clock: FakeClock
) -> None:
    case = with_masks(quick.context.store, files, clock)
    client = quick.signed_in("dr.a")
    known = client.get(f"/cases/{case}/images").json()
    assert (known["is_stack"], known["marks"]) == (True, "RLAPHF")
    for number, finding in enumerate(known["findings"], start=1):
        runs = [run for run in known["masks"][str(finding["slice"])] if run[0] == number]
        painted = [(row, column) for _, row, start, length in runs for column in range(start, start + length)]
        assert np.mean(painted, axis=0) == pytest.approx((finding["y"] - 0.5, finding["x"] - 0.5), abs=0.6)
        assert len(painted) * 0.25 == pytest.approx(np.pi * finding["radius_mm"] ** 2, rel=0.4)  # cells of 1 mm
    assert set(known["masks"]) == {str(n) for n in (2, 3, 4, 5, 6, 7, 8, 16, 17, 18)}
    with quick.context.store.transactions.writing() as session:
        session.execute(update(SeriesRow).values(revision=SeriesRow.revision + 1))
    assert client.get(f"/cases/{case}/images").json()["masks"] == {}, "they are of the report before"
    with quick.context.store.transactions.writing() as session:
        session.execute(update(SeriesRow).values(revision=SeriesRow.revision - 1))
    assert client.get(f"/cases/{case}/images").json()["masks"]
    for path in (files.root / "reports").rglob("*.dcm"):
        path.unlink()
    assert client.get(f"/cases/{case}/images").json()["masks"] == {}


def test_a_mask_is_on_the_phase_that_it_was_drawn_on(quick: Served, files: Files, clock: FakeClock) -> None:
    case = with_masks(quick.context.store, files, clock)
    later = drawn_head()
    for number, ds in enumerate(later):
        ds.SOPInstanceUID = f"2.25.4{number}"
    keep(quick.context.store, files, clock, later)  # at the same positions
    [path] = [files.path(e.file) for e in quick.context.store.worklist.deliveries(case) if e.kind == "segmentation"]
    row = quick.context.store.worklist.case(str(case))
    assert row is not None
    series = quick.context.images.series(case, key_of(row))
    assert len(series.places) == 48
    of_first = {number for number, place in enumerate(series.places) if not place.sop_instance_uid.startswith("2.25.4")}
    masked = set(masks_on(series, path))
    assert masked and masked <= of_first


def test_a_case_that_retention_removes_while_it_is_open_is_said_to_be_gone(
    quick: Served, files: Files, clock: FakeClock
) -> None:
    store = quick.context.store
    with_images(quick, files, clock)
    for delivery in store.worklist.deliveries(1):
        store.outbox.accepted(delivery, clock())
    client = quick.signed_in("dr.a")
    key = form_key_of(client.get("/cases/1"))
    assert client.get("/cases/1/images/0").status_code == 200
    later = clock.advance(10)
    removal = store.retention.begin(1, Why.AGE, later, later)
    assert removal is not None and store.retention.forget(removal, later)
    seen = client.get("/cases/1/review")
    assert (seen.status_code, "may have been removed to make room" in seen.text) == (200, True)
    form = {"form_key": key, "version": "0", "action": "acknowledged"}
    assert client.post("/cases/1/review", data=form).status_code == 404
    for address in ("", "/images", "/images/0", "/thumbnail"):
        assert client.get(f"/cases/1{address}").status_code == 404, address
    assert store.reviews.entries(1) == []


def test_a_slice_of_images_that_have_changed_is_not_given_for_another(
    quick: Served, files: Files, clock: FakeClock
) -> None:
    with_images(quick, files, clock)
    client = quick.signed_in("dr.a")
    before = {"key": client.get("/cases/1/images").json()["key"]}
    assert client.get("/cases/1/images/3", params=before).status_code == 200
    with quick.context.store.transactions.writing() as session:
        session.execute(update(SeriesRow).values(revision=SeriesRow.revision + 1))
    refused = client.get("/cases/1/images/3", params=before)
    assert (refused.status_code, refused.headers["cache-control"]) == (409, "no-store")
    now = {"key": client.get("/cases/1/images").json()["key"]}
    assert client.get("/cases/1/images/3", params=now).status_code == 200


def test_an_image_that_failed_is_answered_in_words_and_no_page(
    quick: Served, files: Files, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_images(quick, files, clock)
    client = quick.signed_in("dr.a")
    with monkeypatch.context() as patched:
        patched.setattr(quick.context.images, "series", lambda *_: 1 // 0)
        answer = client.get("/cases/1/images/3")
        assert (answer.status_code, answer.text.startswith("That went wrong;")) == (500, True)
        answer = client.get("/cases/1/images")
        assert (answer.status_code, answer.json()["message"].startswith("That went wrong;")) == (500, True)

    def away(*_: object) -> Path:
        raise ObjectsAway("the object store does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(Files, "here", away)
        quick.context.images._kept.clear()
        for address in ("/cases/1/images", "/cases/1/images/3"):
            answer = client.get(address)
            assert (answer.status_code, "cannot be had now" in answer.text) == (503, True), "which is asked for again"
    assert client.get("/cases/1/images/3").status_code == 200
    client.cookies.clear()
    answer = client.get("/cases/1/images/3")
    assert (answer.status_code, "sign in again" in answer.text) == (401, True)


def test_slices_that_do_not_lie_above_each_other_are_not_shown_across(
    quick: Served, files: Files, clock: FakeClock
) -> None:
    with_images(quick, files, clock, step_mm=(0.0, 0.3, 1.0))
    known = quick.signed_in("dr.a").get("/cases/1/images").json()
    assert (known["is_stack"], known["masks"]) == (False, {})


def test_a_negative_has_the_threshold_beside_its_probability(pages: Served, clock: FakeClock) -> None:
    claim = claimed(pages.context.store, clock)
    changes: dict[str, Any] = {"probabilities": (0.5,) * 14, "threshold": 0.65}
    assert finish(pages.context.store, clock, claim, Outcome.NEGATIVE, **changes)
    client = pages.signed_in("dr.a")
    for address in ("/", "/cases/1"):
        assert "P 50 %, reported from 65 %" in client.get(address).text, address


def test_earlier_studies_are_those_of_the_same_patient_and_issuer(pages: Served, clock: FakeClock) -> None:
    store = pages.context.store
    reported(store, clock, series="2.25.1", study_instance_uid="2.25.11", study_date="20250301")
    mine: dict[str, Any] = {"study_instance_uid": "2.25.12", "issuer_of_patient_id": "ELSEWHERE"}
    reported(store, clock, series="2.25.2", study_date="20250401", **mine)
    reported(store, clock, series="2.25.3", study_instance_uid="2.25.13", study_date="20270401")
    reported(store, clock, series="2.25.4", study_instance_uid="2.25.14", study_date="20250501", patient_id="")
    reported(store, clock, series="2.25.5", study_instance_uid="2.25.15")
    reported(store, clock, series="2.25.6", study_instance_uid="2.25.16", patient_id="")
    client = pages.signed_in("dr.a")
    page = client.get("/cases/5").text
    assert re.findall(r'<a href="/cases/(\d+)">', page) == ["1"]
    assert "6.5 mm on 01 Mar 2025: + 0.0 ± 2.0 mm, no more than two measurements differ by" in page
    assert "not by registration" in page
    for case in (1, 6):
        assert "Earlier studies" not in client.get(f"/cases/{case}").text


def test_an_open_case_hears_of_all_that_it_shows_and_of_nothing_else(quick: Served, clock: FakeClock) -> None:
    store = quick.context.store
    study: dict[str, Any] = {"study_instance_uid": "2.25.12", "issuer_of_patient_id": "HERE"}
    reported(store, clock, **study)
    client = quick.signed_in("dr.a")
    page = client.get("/cases/1").text

    def part() -> str:
        found = re.search(r'hx-get="([^"]*seen=[^"]*)"', page)
        assert found is not None
        return client.get(found[1]).text

    assert "last slice now" not in page
    clock.advance(60)
    assert part() == ""
    before: dict[str, Any] = {**study, "study_instance_uid": "2.25.11", "study_date": "20250301"}
    reported(store, clock, series="2.25.1", **before)
    page = part()
    assert "Earlier studies" in page
    with store.transactions.writing() as session:
        session.execute(update(SeriesRow).where(SeriesRow.id == 1).values(conflicts=["patient_name"]))
    page = part()
    assert "patient name" in page
    assert part() == ""
    clock.advance(26 * 3600)
    client = quick.signed_in("dr.b")
    last_slice_at = store.worklist.rows()[0]["last_instance_at"]
    assert f"last slice {clock_time(last_slice_at, None, clock())}" in part(), "with the day, which is another one"


def test_the_page_says_when_a_review_goes_back_and_that_it_was_taken(
    sqlite_store: Store, files: Files, tmp_path: Path, clock: FakeClock
) -> None:
    case_with_report(sqlite_store, files, clock, person_name="")
    plain = web_context(sqlite_store, files, tmp_path, clock)
    reviewing = configuration().model_copy(update={"web": plain.config.web, "storage": plain.config.storage})
    with serving(dataclasses.replace(plain, config=reviewing)) as served:
        client = served.signed_in("dr.b")

        def sent_back() -> str:
            found = re.search(r'<p class="soft sent-back">(.*?)</p>', client.get("/cases/1").text)
            return found[1] if found else ""

        assert sent_back().startswith("Once the case is acknowledged and each finding judged")
        accept_one_and_reject_one(sqlite_store, clock)
        assert "the name of the person behind j.doe is not known" in sent_back()
        sqlite_store.accounts.change("j.doe", person_name="Doe^Jane")
        assert "goes to PACS after" in sent_back()
        clock.advance(600)
        context = workflow.Context(reviewing, sqlite_store, files, lambda: None, clock)
        assert send(context) == 1
        assert sent_back() == ""
        while delivery := sqlite_store.outbox.due.claim(clock(), LEASE):
            sqlite_store.outbox.accepted(delivery, clock())
        page = client.get("/cases/1").text
        assert "Review made for PACS" in page and "PACS took the review" in page


def test_a_case_says_where_its_report_stands_and_what_has_taken_its_place_or_was_refused(
    sqlite_store: Store, files: Files, tmp_path: Path, clock: FakeClock
) -> None:
    case_with_report(sqlite_store, files, clock)
    plain = web_context(sqlite_store, files, tmp_path, clock)
    reviewing = configuration().model_copy(update={"web": plain.config.web, "storage": plain.config.storage})
    outbox, context = sqlite_store.outbox, workflow.Context(reviewing, sqlite_store, files, lambda: None, clock)
    with serving(dataclasses.replace(plain, config=reviewing)) as served:
        client = served.signed_in("dr.b")

        def caption(address: str = "/cases/1") -> str:
            found = re.search(r"<summary>(Report .*?)</summary>", client.get(address).text)
            return re.sub(r" ?<[^>]*>", "|", found[1]) if found else ""

        def claim() -> Delivery:
            delivery = outbox.due.claim(clock(), LEASE)
            assert delivery is not None
            return delivery

        assert caption() == "Report on its way"
        outbox.refused(claim(), "it refused with status C000")
        assert caption() == "Report not delivered"
        assert "PACS has not taken the report: it refused with status C000." in client.get("/cases/1").text
        report = sqlite_store.worklist.reports(1)[0]
        assert outbox.requeue(report["id"], clock()) == 1
        outbox.accepted(claim(), clock())
        assert caption() == "Report in the PACS"
        accept_one_and_reject_one(sqlite_store, clock)
        clock.advance(600)
        assert send(context) == 1
        outbox.refused(claim(), "it refused with status A700")
        assert caption() == "Report in the PACS"
        assert "PACS has not taken the review: it refused with status A700." in client.get("/cases/1").text
        assert outbox.requeue(report["id"], clock()) == 1
        outbox.accepted(claim(), clock())
        at = clock_time(clock(), None, clock())
        assert caption() == f"Report in the PACS|replaced by a verified report in PACS at {at}|"
        assert caption("/cases/1/review?seen=nothing") == caption()
        assert "has not taken" not in client.get("/cases/1").text


def test_a_report_without_a_destination_is_not_said_to_be_in_the_pacs(
    sqlite_store: Store, files: Files, tmp_path: Path, clock: FakeClock
) -> None:
    case_with_report(sqlite_store, files, clock)
    with sqlite_store.transactions.writing() as session:
        session.execute(delete(DeliveryRow))
    with serving(web_context(sqlite_store, files, tmp_path, clock)) as served:
        assert "<summary>Report not sent anywhere</summary>" in served.signed_in("dr.b").get("/cases/1").text


def test_a_page_without_a_destination_that_gets_reviews_says_nothing_of_it(
    sqlite_store: Store, files: Files, tmp_path: Path, clock: FakeClock
) -> None:
    case_with_report(sqlite_store, files, clock)
    with serving(web_context(sqlite_store, files, tmp_path, clock)) as served:
        assert "sent-back" not in served.signed_in("dr.b").get("/cases/1").text


def test_a_series_that_gets_the_number_of_a_removed_case_has_another_key() -> None:
    row = {"revision": 1, "instance_count": 300, "series_instance_uid": "2.25.1"}
    assert key_of(row) == key_of(dict(row))
    assert (
        len({key_of(row), key_of(row | {"series_instance_uid": "2.25.2"}), key_of(row | {"instance_count": 301})}) == 3
    )
