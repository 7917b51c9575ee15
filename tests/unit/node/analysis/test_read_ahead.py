"""Slices are read while the rest of their series arrives; what is analysed is what the database says at the claim."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless

from ai.errors import NotAnalysable
from ai.volume import read_slice, volume_from_datasets, volume_from_slices
from node.analysis.read_ahead import AT_ONCE, FORGET_SECONDS, PAUSE_SECONDS, ReadAhead
from node.config.sections import Eligibility
from node.runtime.clock import utc_now
from storage.files.instances import Files
from storage.queries.receiving import Settling
from storage.records import Series
from storage.stages import Event
from storage.store import Store
from tests.support.builders import FakeClock, Seconds, add_instance, header, keep, open_association, stored_file
from tests.support.compressed import by_codec
from tests.support.dicom_factory import change, ct_series, enhanced_ct

RULES = Eligibility(minimum_slices=4)


@pytest.fixture
def arrive(store: Store, files: Files, clock: FakeClock) -> Callable[[Sequence[Dataset]], Series]:
    """Instances come, and their series is still being received."""
    return lambda datasets: keep(store, files, clock, datasets, closed=None)


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def ahead(store: Store, files: Files, seconds: Seconds) -> ReadAhead:
    return ReadAhead(store.settling, files, RULES, seconds)


def test_what_arrives_is_read_a_few_at_a_time_until_nothing_more_waits(
    ahead: ReadAhead, arrive: Callable[..., Series], store: Store
) -> None:
    series = ct_series(2 * AT_ONCE + 3)
    case = arrive(series[:-1]).id
    assert [ahead.read_some() for _ in range(3)] == [0.0, 0.0, PAUSE_SECONDS]
    arrive(series[-1:])
    assert ahead.read_some() == PAUSE_SECONDS
    taken = ahead.take(case).slices
    assert list(taken) == [file for _, file in store.settling.instances(case)]
    assert all(each.hu is not None and "PixelData" not in each.ds for each in taken.values())
    assert ahead.take(case).slices == {}


def test_what_was_being_received_when_one_first_looked_is_known_as_that(
    ahead: ReadAhead, arrive: Callable[..., Series]
) -> None:
    arrive(ct_series(3))
    ahead.read_some()
    later = ct_series(3, SeriesInstanceUID="2.25.901", StudyInstanceUID="2.25.902")
    for number, ds in enumerate(later):
        ds.SOPInstanceUID = f"2.25.903.{number}"
    arrive(later)
    ahead.read_some()
    assert [(each.was_met, len(each.slices)) for each in ahead.held()] == [(True, 3), (False, 3)]


@pytest.mark.parametrize("changes", [{}, {"slope": 0.5}, {"signed": True}, {"PixelPaddingValue": 40}])
def test_the_volume_is_the_same_bit_for_bit(changes: dict[str, Any]) -> None:
    plain = volume_from_datasets(ct_series(7, **changes))
    some = [read_slice(ds) for ds in ct_series(7, **changes)][::-1]
    volume = volume_from_slices(some)
    np.testing.assert_array_equal(volume.hu_DHW, plain.hu_DHW)
    np.testing.assert_array_equal(volume.affine_lps, plain.affine_lps)
    assert volume.sop_instance_uids == plain.sop_instance_uids


def test_compressed_multi_frame_and_unusable_pixels_are_left_for_whoever_makes_the_volume() -> None:
    series = ct_series(4)
    compressed = by_codec(series, JPEGLSLossless)
    for left in (compressed[0], enhanced_ct(series), ct_series(1, PixelData=b"short")[0]):
        each = read_slice(left)
        assert each.hu is None
        assert "PixelData" in each.ds
    with pytest.raises(NotAnalysable, match="truncated"):
        volume_from_slices([read_slice(ds) for ds in (*series[:3], ct_series(4, PixelData=b"short")[3])])


def test_what_was_deflated_is_left_for_after_the_claim(ahead: ReadAhead, store: Store, files: Files) -> None:
    heads = [header(number, transfer_syntax_uid=DeflatedExplicitVRLittleEndian) for number in range(1, 5)]
    association = open_association(store, "receiver", "PACS", utc_now())
    for head in heads:  # no file of theirs can be read
        add_instance(store, head, stored_file(head), association, "PACS", utc_now())
    assert ahead.read_some() == PAUSE_SECONDS
    assert ahead.take(store.settling.receiving()[0].id).slices == {}


def test_what_will_not_be_analysed_is_not_read(ahead: ReadAhead, arrive: Callable[..., Series]) -> None:
    case = arrive(ct_series(5, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])).id
    ahead.read_some()
    assert ahead.read_some() is None
    assert ahead.take(case).slices == {}


def test_what_is_no_longer_received_is_kept_for_the_claim_and_not_among_what_is_held(
    ahead: ReadAhead, arrive: Callable[..., Series], store: Store, clock: FakeClock, seconds: Seconds
) -> None:
    series = arrive(ct_series(5))
    ahead.read_some()
    assert [each.case for each in ahead.held()] == [series.id]
    assert store.settling.leave(series, Event.SETTLED, "count", clock())
    seconds.now += 1
    ahead.read_some()
    assert ahead.held() == []
    assert len(ahead.take(series.id).slices) == 5


def test_what_nobody_takes_is_forgotten(
    ahead: ReadAhead, arrive: Callable[..., Series], store: Store, clock: FakeClock, seconds: Seconds
) -> None:
    series = arrive(ct_series(5))
    ahead.read_some()
    assert store.settling.leave(series, Event.SETTLED, "count", clock())
    seconds.now += FORGET_SECONDS + 1
    assert ahead.read_some() is None
    assert ahead.take(series.id).slices == {}


def test_no_more_than_so_many_bytes_are_held(
    store: Store, files: Files, arrive: Callable[..., Series], seconds: Seconds
) -> None:
    case = arrive(ct_series(3 * AT_ONCE)).id
    sizes = [file.size_bytes for _, file in store.settling.instances(case)]
    ahead = ReadAhead(store.settling, files, RULES, seconds, most_bytes=sum(sizes[: AT_ONCE + 3]) - 1)
    assert [ahead.read_some() for _ in range(3)] == [0.0, PAUSE_SECONDS, PAUSE_SECONDS]
    assert len(ahead.take(case).slices) == AT_ONCE + 2, "the next one would be a byte too many"


@pytest.mark.parametrize("garbled", [b"", b"not DICOM " * 100, None])
def test_a_file_that_cannot_be_read_ends_the_reading_ahead_of_its_series_and_of_no_other(
    ahead: ReadAhead, arrive: Callable[..., Series], store: Store, files: Files, garbled: bytes | None
) -> None:
    bad = arrive(ct_series(AT_ONCE + 2)).id
    good = arrive(
        [change(ds, SeriesInstanceUID="2.25.7", SOPInstanceUID=f"2.25.7.{n}") for n, ds in enumerate(ct_series(6))]
    ).id
    _, last = store.settling.instances(bad)[-1]
    path, whole = files.path(last), files.path(last).read_bytes()
    path.unlink()
    if garbled is not None:
        path.write_bytes(garbled)
    assert [ahead.read_some() for _ in range(2)] == [0.0, PAUSE_SECONDS]
    path.write_bytes(whole)
    arrive(ct_series(AT_ONCE + 4)[-2:])
    assert ahead.read_some() == PAUSE_SECONDS
    assert (len(ahead.take(good).slices), len(ahead.take(bad).slices)) == (6, 0)


def test_who_has_read_up_to_what_another_host_received_does_not_look_again_and_again(
    ahead: ReadAhead, arrive: Callable[..., Series], store: Store, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = arrive(ct_series(5)).id
    _, elsewhere = store.settling.instances(case)[3]
    monkeypatch.setattr(files, "objects", object())
    files.path(elsewhere).unlink()
    assert [ahead.read_some() for _ in range(2)] == [PAUSE_SECONDS, None]
    arrive(ct_series(6)[-1:])
    assert ahead.read_some() is None
    assert len(ahead.take(case).slices) == 3


def test_what_was_read_is_kept_while_the_database_does_not_answer(
    ahead: ReadAhead, arrive: Callable[..., Series], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = arrive(ct_series(AT_ONCE + 2)).id
    assert ahead.read_some() == 0.0
    with monkeypatch.context() as away:
        away.setattr(Settling, "receiving", None)
        assert ahead.read_some() is None
    assert ahead.read_some() == PAUSE_SECONDS
    assert len(ahead.take(case).slices) == AT_ONCE + 2


def test_datasets_read_ahead_say_what_the_file_says(
    ahead: ReadAhead, arrive: Callable[..., Series], files: Files
) -> None:
    case = arrive(ct_series(5)).id
    ahead.read_some()
    for file, each in ahead.take(case).slices.items():
        whole = dcmread(files.path(file))
        del whole.PixelData
        assert each.ds == whole
