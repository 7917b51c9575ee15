"""What is not as it was negotiated: it is refused alone, or understood all the same."""

import pytest
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE

from tests.support.builders import encoded
from tests.support.dicom_factory import ct_series
from tests.support.raw_scu import RawScu, associate_rq
from tests.support.site import SiteFactory

UNKNOWN_CLASS = "1.3.12.2.1107.5.9.1"  # private, and not configured
ABSTRACT_SYNTAX_NOT_SUPPORTED = 0x03


def test_an_unknown_sop_class_is_refused_and_the_other_contexts_of_the_association_work(site: SiteFactory) -> None:
    made = site()
    ae = AE("CT1")
    ae.add_requested_context(UNKNOWN_CLASS, ExplicitVRLittleEndian)
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    assoc = ae.associate("127.0.0.1", made.config.node.port)
    assert [(cx.abstract_syntax, cx.result) for cx in assoc.rejected_contexts] == [
        (UNKNOWN_CLASS, ABSTRACT_SYNTAX_NOT_SUPPORTED)
    ]
    assert assoc.send_c_store(ct_series(1)[0]).Status == 0x0000
    assoc.release()


@pytest.mark.parametrize(
    ("accepted", "sent", "status"),
    [
        (ExplicitVRLittleEndian, ImplicitVRLittleEndian, 0x0000),  # the VR shows itself; such senders exist
        (ImplicitVRLittleEndian, ExplicitVRLittleEndian, 0x0000),
        (ExplicitVRLittleEndian, ExplicitVRBigEndian, 0xC000),
        (DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, 0xC000),
    ],
)
def test_a_dataset_in_another_syntax_than_was_accepted(
    site: SiteFactory, accepted: str, sent: str, status: int
) -> None:
    made = site()
    wrong, right = ct_series(2)
    with RawScu(made.config.node.port).associate(associate_rq(syntax=accepted)) as peer:
        assert peer.store(wrong, encoded(wrong, sent)) == status
        if accepted != DeflatedExplicitVRLittleEndian:
            assert peer.store(right, encoded(right, accepted)) == 0x0000
        peer.release()
    rows = made.store.worklist.rows()
    assert all(row["patient_id"] == wrong.PatientID and row["modality"] == "CT" for row in rows)
