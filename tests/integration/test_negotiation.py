"""Presentation contexts that cannot be accepted are refused alone."""

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from tests.dicom_factory import ct_series
from tests.site import SiteFactory

UNKNOWN_CLASS = "1.2.840.10008.5.1.4.1.1.4"  # MR Image Storage
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
