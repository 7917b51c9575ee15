"""Which series results are put into: always the same for the same case, and never one for two."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from node.config.types import Region
from node.results.identity import derive_uid
from node.results.objects import Maker
from storage.before import Before
from storage.records import Series
from storage.stages import Stage
from tests.support.dicom_factory import STUDY_UID, ct_series, headers_of
from tests.support.reports import ALGORITHM, CREATED, NEGATIVE

AT = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
SERIES = Series(1, "2.25.1002", STUDY_UID, "CT", Stage.ANALYSING, 1, 6, None, None, (), 1, AT, AT)
HEADERS = headers_of(ct_series(6))
MAKER = Maker(SERIES, HEADERS, NEGATIVE, None, ALGORITHM, CREATED, 9901, "WILLIS")
FLAT = Region.CIRCLE_2D


def series_uid(maker: Maker) -> str:
    return str(maker.report(FLAT, FLAT).SeriesInstanceUID)


def test_attempts_and_revisions_of_a_case_go_into_one_series() -> None:
    others = [
        replace(MAKER, created=CREATED + timedelta(hours=1)),
        replace(MAKER, series=replace(SERIES, revision=2, attempts=3, instance_count=9)),
        replace(MAKER, algorithm=replace(ALGORITHM, version="0.2.0")),
        replace(MAKER, headers=HEADERS[::-1]),
    ]
    assert {series_uid(each) for each in others} == {series_uid(MAKER)}


def test_no_two_cases_studies_or_nodes_share_a_series() -> None:
    moved = headers_of(ct_series(6, StudyInstanceUID="2.25.5"))
    others = [
        replace(MAKER, series=replace(SERIES, series_instance_uid="2.25.1003")),
        replace(MAKER, series=replace(SERIES, first_instance_at=AT + timedelta(days=1))),
        replace(MAKER, headers=moved),
        replace(MAKER, ae_title="OTHER"),
    ]
    assert len({series_uid(each) for each in (MAKER, *others)}) == 5


def test_a_case_that_began_at_a_node_of_another_name_or_before_series_had_one_goes_on_in_its_series() -> None:
    first = replace(MAKER, ae_title="OTHER")
    again = replace(
        MAKER, series=replace(SERIES, revision=2), before=Before({"report": ("2.25.72", "2.25.73")}, "OTHER")
    )
    assert series_uid(again) == series_uid(first)
    [study] = again.report(FLAT, FLAT).PredecessorDocumentsSequence
    [named] = study.ReferencedSeriesSequence
    assert (study.StudyInstanceUID, named.SeriesInstanceUID) == (STUDY_UID, series_uid(first))
    uids = [each.ReferencedSOPInstanceUID for each in named.ReferencedSOPSequence]
    assert uids == ["2.25.72", "2.25.73"], "the report and its review: who gets no reviews has the report alone"
    old = replace(again, before=Before({"report": ("2.25.72",)}, ""))
    assert series_uid(old) == derive_uid("report series", SERIES.series_instance_uid)
    assert old.named_by == "", "the revision after it, too"
