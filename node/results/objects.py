"""Which objects a conclusion becomes, and what they are called: UIDs are derived, so that the same is never made twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydicom import Dataset

from ai.findings import Findings
from ai.frames import text_of
from ai.volume import Volume
from node.config.types import Marking
from node.results.document import Algorithm, Outcome, Predecessor
from node.results.identity import derive_uid
from node.results.secondary_capture import build_summary
from node.results.segmentation import build_segmentation
from node.results.sr import Region, build_report
from storage.records import Series

_REGIONS = {"2d": Region.CIRCLE_2D, "box": Region.BOX_2D, "3d": Region.POINT_3D}


@dataclass(frozen=True)
class Maker:
    """Makes the objects of one conclusion.  `own` in its methods is the marking of the report that is always made."""

    series: Series
    headers: Sequence[Dataset]
    said: Outcome
    volume: Volume | None
    algorithm: Algorithm
    created: datetime
    series_number: int

    def report(self, marking: Marking, own: Marking, predecessor_uid: str | None = None) -> Dataset:
        """The SR whose findings are marked so; as circles where the images have no frame of reference for points."""
        series_uid = self._series_uid("report")
        spatial = all(text_of(ds, "FrameOfReferenceUID") for ds in self.headers)
        before = [Predecessor(self.series.study_instance_uid, series_uid, predecessor_uid)] if predecessor_uid else []
        return build_report(
            self.headers,
            self.said,
            report_uid=self._uid("report", marking, own),
            series_uid=series_uid,
            series_number=self.series_number,
            instance_number=self.series.revision,
            created=self.created,
            algorithm=self.algorithm,
            predecessors=before,
            region=_REGIONS[marking] if spatial or marking != "3d" else Region.CIRCLE_2D,
        )

    def summary(self, marking: Marking, own: Marking) -> Dataset:
        """The Secondary Capture that belongs to the report whose findings are marked so."""
        return build_summary(
            self.headers,
            self.said,
            self.volume,
            summary_uid=self._uid("summary", marking, own),
            series_uid=self._series_uid("summary"),
            series_number=self.series_number + 1,
            instance_number=self.series.revision,
            report_uid=self._uid("report", marking, own),
            created=self.created,
            algorithm=self.algorithm,
        )

    def segmentation(self, marking: Marking, own: Marking) -> Dataset | None:
        """The masks of the findings of the report whose findings are marked so; None where there are none."""
        if not isinstance(self.said, Findings) or not any(lesion.mask for lesion in self.said.lesions):
            return None
        return build_segmentation(
            self.headers,
            self.said,
            segmentation_uid=self._uid("segmentation", marking, own),
            series_uid=self._series_uid("segmentation"),
            series_number=self.series_number + 2,
            instance_number=self.series.revision,
            report_uid=self._uid("report", marking, own),
            created=self.created,
            algorithm=self.algorithm,
        )

    def _series_uid(self, kind: str) -> str:
        return derive_uid(f"{kind} series", self.series.series_instance_uid)

    def _uid(self, kind: str, marking: Marking, own: Marking) -> str:
        # A case that was removed begins at revision 1 when its series is sent again; the time of its first slice tells
        # them apart, or the PACS would take the new report for the old one.
        case = (self.series.series_instance_uid, self.series.first_instance_at.isoformat())
        parts = (kind, *case, self.series.revision, self.algorithm.version)
        return derive_uid(*parts) if marking == own else derive_uid(*parts, marking)
