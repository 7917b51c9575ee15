"""Senders that know what was acknowledged to them."""

from contextlib import suppress

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from tests.support.builders import encoded
from tests.support.dicom_factory import ct_series
from tests.support.raw_scu import RELEASE_RQ, RawScu, all_of, associate_rq, store_pdus


def small_series(number: int, slices: int = 3) -> list[tuple[Dataset, bytes]]:
    """A series of 16² slices: each dataset and its bytes on the wire."""
    uid = f"2.25.55{number:06d}"
    made = ct_series(slices, rows=16, columns=16, SeriesInstanceUID=uid, StudyInstanceUID=f"{uid}.1")
    for index, ds in enumerate(made):
        ds.SOPInstanceUID = UID(f"{uid}.2.{index + 1}")
    return [(ds, encoded(ds)) for ds in made]


def send(
    port: int,
    series: list[tuple[Dataset, bytes]],
    acknowledged: dict[str, bytes],
    syntax: str = ExplicitVRLittleEndian,
) -> bool:
    """Whether every slice was acknowledged, on one association that was released; each that was is noted."""
    with suppress(OSError, AssertionError), RawScu(port, 10).associate(associate_rq(syntax=syntax)) as scu:
        for ds, dataset in series:
            scu.send(all_of(store_pdus(ds.SOPClassUID, ds.SOPInstanceUID, dataset)))
            assert scu.status() == 0
            acknowledged[str(ds.SOPInstanceUID)] = dataset
        scu.send(RELEASE_RQ)
        scu.pdu()
        return True
    return False
