"""Sites that send for a day: what, when, and until it was acknowledged."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    UltrasoundImageStorage,
)

from node.errors import NodeError, Refused
from node.scu import dimse
from tests.corpus.images import PLAIN_HU, cta, other
from tests.scale.model import Service, day
from tests.scale.sleeper import MOST_SECONDS, level_hu
from tests.scale_demo.sending import is_acknowledged
from tests.scale_demo.site import Site
from tests.soak.load import Sent, SentSeries, angiography
from tests.support.builders import encoded
from tests.support.dicom_factory import change

SLEPT = Service(1.0, 0.5)
ANGIOGRAPHY, PLAIN, PRIVATE = "head angiography", "plain CT", "private object"
BESIDE = {PLAIN: 0.4, "radiograph": 0.8, "MR": 0.4, "ultrasound": 0.4, PRIVATE: 0.2}
"""How many of these come with each angiography."""
CLASSES = {"radiograph": ComputedRadiographyImageStorage, "MR": MRImageStorage, "ultrasound": UltrasoundImageStorage}
MODALITIES = {"radiograph": "CR", "MR": "MR", "ultrasound": "US"}
PRIVATE_CLASS = "1.3.12.2.1107.5.9.1"
"""CSA Non-Image Storage of Siemens."""
FIRST_NUMBER = 8_000_001
"""Of the studies: other senders number theirs otherwise."""


def title(site: int) -> str:
    """The AE title of a site."""
    return f"SITE{site:03d}"


def peers(sites: int) -> dict[str, str]:
    """The settings of hosts to which these sites send."""
    keys = {"host": '"127.0.0.1"', "port": "104", "destination": '"PACS"'}
    return {
        f"peers__{title(site)}__{key}": value
        for site in range(sites)
        for key, value in ({"ae_title": repr(title(site))} | keys).items()
    }


@dataclass(frozen=True)
class Study:
    """What a site sends at `at` seconds after the beginning.  `service`: seconds of a worker; of an angiography alone."""

    at: float
    site: int
    kind: str
    service: float = 0.0


def drawn(random: np.random.Generator, sites: int, series_a_day: float, hour_seconds: float) -> list[Study]:
    """All that the sites send in a day whose hours are so long, in order."""
    arrivals = day(random, sites, series_a_day, SLEPT)
    studies = [
        Study(each.at / 3600 * hour_seconds, each.site, ANGIOGRAPHY, min(each.service, MOST_SECONDS))
        for each in arrivals
    ]
    for kind, share in BESIDE.items():
        more = day(random, sites, series_a_day * share, SLEPT)
        studies += [Study(each.at / 3600 * hour_seconds, each.site, kind) for each in more]
    return sorted(studies, key=lambda study: study.at)


@dataclass
class Senders:
    """Each study is sent until it was acknowledged, in a thread of its own.  `sites`: of each angiography by its UID."""

    site: Site
    sent: Sent = field(default_factory=Sent)
    sites: dict[str, int] = field(default_factory=dict)
    services: dict[str, float] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    """How many of each kind were acknowledged whole; "refused": of those, what the hosts took none of; "again": attempts that failed."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set: what fails is not sent again."""

    def send(self, number: int, study: Study) -> None:
        """It was acknowledged, or refused as it should be.  Raises AssertionError where it was not when sending was to stop."""
        again = partial(self._again, Random(number), study)
        if study.kind == PRIVATE:
            while not self._is_refused(study):
                again()
        else:
            slices = self._made(FIRST_NUMBER + number, study)
            while not is_acknowledged(self.site.hosts.balancer.port, title(study.site), slices, self.sent):
                again()
            uid = str(slices[0][0].SeriesInstanceUID)
            self.sent.series[uid].is_whole = study.kind == ANGIOGRAPHY
        self.done[study.kind] += 1

    def _again(self, random: Random, study: Study) -> None:
        self.done["again"] += 1
        if self.stopping.wait(random.uniform(0.5, 1.5)):
            raise AssertionError(f"{title(study.site)} could not send its {study.kind} whole")

    def _made(self, number: int, study: Study) -> list[tuple[Dataset, bytes]]:
        """The study, which is known from now on."""
        if study.kind == ANGIOGRAPHY:
            slices = angiography(number, level_hu(study.service))
            uid = str(slices[0][0].SeriesInstanceUID)
            self.sites[uid], self.services[uid] = study.site, study.service
        else:
            slices = [(ds, encoded(ds)) for ds in _others(number, study.kind)]
            uid = str(slices[0][0].SeriesInstanceUID)
        kind = "negative" if study.kind == ANGIOGRAPHY else "other"
        self.sent.series[uid] = SentSeries(uid, kind, len(slices))
        return slices

    def _is_refused(self, study: Study) -> bool:
        """Whether no host takes it; False where none is to be had."""
        entity = dimse.Entity(title(study.site), dimse.Timeouts(30, 30, 30))
        try:
            dimse.associate(entity, self.site.hosts.address, [(PRIVATE_CLASS, ExplicitVRLittleEndian)]).abort()
        except Refused:
            self.done["refused"] += 1
        except NodeError:
            return False
        return True


def _others(number: int, kind: str) -> Sequence[Dataset]:
    """A plain CT of thick slices, or one object of another modality."""
    root = f"2.25.78{number:07d}"
    named: dict[str, Any] = {
        "StudyInstanceUID": f"{root}.1",
        "SeriesInstanceUID": f"{root}.2",
        "PatientID": f"P-{number}",
    }
    if kind != PLAIN:
        return [other(CLASSES[kind], SOPInstanceUID=f"{root}.3.1", Modality=MODALITIES[kind], **named)]
    slices = cta(PLAIN_HU, count=8, spacing_mm=5.0, SliceThickness=5.0)
    return [change(ds, SOPInstanceUID=f"{root}.3.{place}", **named) for place, ds in enumerate(slices, 1)]
