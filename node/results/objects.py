"""Which objects a conclusion becomes, and what they are called: UIDs are derived, so that the same is never made twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from pydicom import Dataset

from ai.errors import Reason
from ai.findings import Findings
from ai.frames import text_of
from ai.volume import Volume
from ai.wording import unpadded
from node.config.types import Region
from node.results.document import NUMBERS_OF_A_REVISION, Algorithm, Document, NotAnalysed, Outcome, Predecessor
from node.results.identity import derive_uid, reported_on, uid_of
from node.results.secondary_capture import build_summary
from node.results.segmentation import build_segmentation
from node.results.sr import build_report
from storage.before import Before
from storage.records import Series


@dataclass(frozen=True)
class Maker:
    """Makes the objects of one conclusion.  `own` in its methods is the region of the report that is always made.

    `of`: the region of the report that an object beside it belongs to, one that is made.
    `ae_title`: of the node whose results they are.  `before`: what was made of the case before.
    `unanalysed`: see `build_report`.
    """

    series: Series
    headers: Sequence[Dataset]
    outcome: Outcome
    volume: Volume | None
    algorithm: Algorithm
    created: datetime
    series_number: int
    ae_title: str
    before: Before | None = None
    unanalysed: str = ""

    def report(self, region: Region, own: Region) -> Dataset:
        """The SR whose findings are marked so; as circles where the images have no frame of reference for points."""
        document = self._document("report", 0, region, own, region)
        spatial = all(uid_of(text_of(ds, "FrameOfReferenceUID")) for ds in self.headers)
        shown = region if spatial or region is not Region.POINT_3D else Region.CIRCLE_2D
        replaced = self.before.uids.get("report" if region == own else f"report {region}", ()) if self.before else ()
        predecessors = [Predecessor(self._study_uid, document.series_instance_uid, uid) for uid in replaced]
        return build_report(document, self.outcome, predecessors=predecessors, region=shown, unanalysed=self.unanalysed)

    def summary(self, region: Region, own: Region, of: Region) -> Dataset | None:
        """The Secondary Capture for who gets findings marked so; an ineligible series has none.

        A summary is an image: of one that comes back, as of any image that is not analysed, none is made.
        """
        if isinstance(self.outcome, NotAnalysed) and self.outcome.reason is Reason.NOT_ELIGIBLE:
            return None
        return build_summary(self._document("summary", 1, region, own, of), self.outcome, self.volume)

    def segmentation(self, region: Region, own: Region, of: Region) -> Dataset | None:
        """The masks of the findings for who gets them marked so; None where there are none."""
        if not isinstance(self.outcome, Findings) or not any(lesion.mask for lesion in self.outcome.lesions):
            return None
        return build_segmentation(self._document("segmentation", 2, region, own, of), self.outcome)

    def _document(self, kind: str, place: int, region: Region, own: Region, of: Region) -> Document:
        """`place`: of the kind's series among those of the study."""
        return Document(
            self.headers,
            sop_instance_uid=self._uid(kind, region, own),
            series_instance_uid=self._series_uid(kind),
            series_number=self.series_number + place,
            report_uid=self._uid("report", of, own),
            created=self.created,
            algorithm=self.algorithm,
            instance_number=self.series.revision * (NUMBERS_OF_A_REVISION if kind == "report" else 1),
        )

    @cached_property
    def _study_uid(self) -> str:
        """Of the images that are reported on, and so of the objects."""
        return unpadded(text_of(reported_on(self.headers)[0], "StudyInstanceUID"))

    @property
    def _case(self) -> tuple[str, str]:
        # A case that was removed begins at revision 1 when its series is sent again; the time of its first slice tells
        # them apart, or the PACS would take the new report for the old one.
        return self.series.series_instance_uid, self.series.first_instance_at.isoformat()

    @property
    def named_by(self) -> str:
        """The AE title by which the series of the case's results are named: of the node that made its first."""
        return self.ae_title if self.before is None else self.before.ae_title

    def _series_uid(self, kind: str) -> str:
        """That of a series of this case, study and node (PS3.3 A.1.2); where a case began earlier, as it was named then."""
        if not self.named_by:
            return derive_uid(f"{kind} series", self.series.series_instance_uid)
        return derive_uid(f"{kind} series", self._study_uid, *self._case, self.named_by)

    def _uid(self, kind: str, region: Region, own: Region) -> str:
        parts = (kind, *self._case, self.series.revision, self.algorithm.version)
        return derive_uid(*parts) if region == own else derive_uid(*parts, region)
