"""Three studies in OHIF: the pictures in var/viewer are to be looked at; what can be checked by text is checked.

Orthanc with its DICOMweb plug-in holds a positive, a negative and a not analysed study; one server on loopback gives
OHIF's bundle and passes `/dicom-web` on to Orthanc, so that all has one origin.
"""

import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from pydicom import Dataset, dcmread

from ai.errors import Reason
from ai.findings import Findings, Lesion
from ai.lesion_mask import LesionMask
from ai.locations import LOCATIONS, Location
from ai.volume import volume_from_datasets
from node.commands.demo import SEEDS
from node.key_image import build_summary
from node.report import Algorithm, NotAnalysed, Outcome, Region, build_report, derive_uid, encode
from node.segmentation import build_segmentation
from tests.running import cached_phantom, free_port, wait_until

FOLDER = Path("var/viewer")
OHIF = FOLDER / "tools" / "ohif" / "dist"
ALGORITHM = Algorithm("Willis aneurysm detection", "0.2.0", "0.1.0", derive_uid("device", "viewer"))
SHOWN = {
    "positive": (
        ("report-before", "Diameter: 8.10 mm"),
        ("report", "Measurements (1)"),
        ("report", "Intracranial aneurysm"),
        ("report", "Middle Cerebral Artery"),
        ("mask", "Aneurysm 1: Left Middle Cerebral Artery"),
    ),
}
"""What OHIF says when the report, then the masks were opened, and after it was allowed to take them over."""
CONFIG = """window.config = {
  routerBasename: null, extensions: [], modes: [], customizationService: {}, showStudyList: true,
  showWarningMessageForCrossOrigin: false, showCPUFallbackMessage: false, investigationalUseDialog: { option: 'never' },
  strictZSpacingForVolumeViewport: true, defaultDataSourceName: 'dicomweb',
  dataSources: [{ namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'dicomweb',
    configuration: { friendlyName: 'PACS', name: 'PACS', wadoUriRoot: '/wado', qidoRoot: '/dicom-web',
      wadoRoot: '/dicom-web', qidoSupportsIncludeField: false, imageRendering: 'wadors',
      thumbnailRendering: 'wadors', enableStudyLazyLoad: true, supportsFuzzyMatching: false,
      supportsWildcard: true, omitQuotationForMultipartRequest: true } }],
};"""


class Site(http.server.SimpleHTTPRequestHandler):
    """OHIF's files, its one page for every other path, and Orthanc behind /dicom-web."""

    def __init__(self, *args: Any, orthanc: str, **kwargs: Any) -> None:
        """`orthanc`: the URL to pass on to."""
        self.orthanc = orthanc
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        """Answers from Orthanc, from the bundle, or with the page."""
        path = self.path.partition("?")[0]
        if path.startswith("/dicom-web"):
            accept = {"Accept": self.headers.get("Accept", "*/*")}
            answer = httpx.get(self.orthanc + self.path, headers=accept, timeout=60, trust_env=False)
            return self._answer(answer.status_code, answer.headers.get("Content-Type", ""), answer.content)
        if path == "/app-config.js":
            return self._answer(200, "text/javascript", CONFIG.encode())
        if not (OHIF / path.lstrip("/")).is_file():
            return self._answer(200, "text/html", (OHIF / "index.html").read_bytes())
        return super().do_GET()

    def _answer(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def end_headers(self) -> None:
        """Isolated, so that the viewer may share memory with its workers."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def studies() -> dict[str, tuple[list[Dataset], Outcome]]:
    """The middle slices of a phantom as three studies, and what is said of each."""
    paths = cached_phantom(
        "positive", seed=SEEDS["positive"], positive=True, location=Location.LEFT_MCA, diameter_mm=8.0, matrix=384, spacing_mm=0.7
    )  # fmt: skip
    every = sorted((dcmread(path) for path in paths), key=lambda ds: float(ds.ImagePositionPatient[2]))
    where = (44.8, 14.6, -31.3)
    nearest = min(range(len(every)), key=lambda i: abs(float(every[i].ImagePositionPatient[2]) - where[2]))
    lesion = Lesion(Location.LEFT_MCA, 0.973, where, 8.1, ball(where, 8.1))
    probabilities = [0.012] * 13
    probabilities[LOCATIONS.index(lesion.location)] = 0.951
    said: dict[str, Outcome] = {
        "positive": Findings((*probabilities, 0.973), (lesion,), 0.31),
        "negative": Findings((0.012,) * 13 + (0.04,), (), 0.31),
        "not-analysed": NotAnalysed(Reason.GAP, "about 3 slices missing in 1 gap, the first of 2.80 mm"),
    }
    return {name: (renamed(every[nearest - 30 : nearest + 30], name), outcome) for name, outcome in said.items()}


def ball(centre_lps_mm: tuple[float, float, float], diameter_mm: float) -> LesionMask:
    """The cells of the lesion map whose middle lies in a ball."""
    cell_mm, half = 1.4, 4
    offsets_mm = cell_mm * (np.indices((2 * half + 1,) * 3) - half)
    affine = np.array([[0, 0, cell_mm, 0], [0, cell_mm, 0, 0], [cell_mm, 0, 0, 0], [0, 0, 0, 1.0]])
    affine[:3, 3] = np.subtract(centre_lps_mm, half * cell_mm)
    return LesionMask(np.linalg.norm(offsets_mm, axis=0) <= diameter_mm / 2.0, affine)


def renamed(series: Sequence[Dataset], name: str) -> list[Dataset]:
    """Copies of the series in a study of its own."""
    copies = []
    for source in series:
        ds = Dataset({element.tag: type(element)(element.tag, element.VR, element.value) for element in source})
        ds.file_meta = source.file_meta
        ds.StudyInstanceUID, ds.SeriesInstanceUID = derive_uid(name, "study"), derive_uid(name, "series")
        ds.FrameOfReferenceUID, ds.PatientName = derive_uid(name, "frame"), f"Viewer^{name}"
        ds.PatientID = name
        ds.SOPInstanceUID = derive_uid(name, str(source.SOPInstanceUID))
        copies.append(ds)
    return copies


def files_of(name: str, series: list[Dataset], outcome: Outcome) -> Iterator[bytes]:
    """The study as the PACS holds it: images, report, summary and masks."""
    created, uid = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), derive_uid(name, "report")
    for ds in series:
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        yield encode(ds)
    yield encode(
        build_report(
            series,
            outcome,
            report_uid=uid,
            series_uid=derive_uid(name, "reports"),
            series_number=9901,
            created=created,
            algorithm=ALGORITHM,
            region=Region.BOX_2D,
        )
    )
    if isinstance(outcome, Findings) and outcome.positive:
        yield encode(
            build_segmentation(
                series, outcome, segmentation_uid=derive_uid(name, "mask"), series_uid=derive_uid(name, "masks"),
                series_number=9903, report_uid=uid, created=created, algorithm=ALGORITHM,
            )
        )  # fmt: skip
    volume = None if isinstance(outcome, NotAnalysed) else volume_from_datasets(series)
    yield encode(
        build_summary(
            series, outcome, volume, summary_uid=derive_uid(name, "summary"), series_uid=derive_uid(name, "summaries"),
            series_number=9902, report_uid=uid, created=created, algorithm=ALGORITHM,
        )
    )  # fmt: skip


@contextmanager
def orthanc() -> Iterator[str]:
    """The URL of an Orthanc with DICOMweb that runs inside."""
    folder, port = FOLDER / "orthanc", free_port()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = {
        "HttpPort": port, "DicomPort": free_port(), "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "StorageDirectory": str(folder), "IndexDirectory": str(folder), "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin") or "Orthanc"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(url), 60, "Orthanc answers")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/dicom-web/studies", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def look(base: str, name: str) -> dict[str, Any]:
    """What OHIF said of the study, by what was looked at."""
    done = subprocess.run(
        ["node", "tests/viewer/look.cjs", base, derive_uid(name, "study"), name, str(FOLDER)],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    """The pictures are in var/viewer; returns how many studies were not shown as they should be."""
    wrong = 0
    with orthanc() as url:
        for name, (series, outcome) in studies().items():
            for content in files_of(name, series, outcome):
                httpx.post(f"{url}/instances", content=content, trust_env=False, timeout=60).raise_for_status()
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, orthanc=url, directory=str(OHIF)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in sys.argv[1:] or ("positive", "negative", "not-analysed"):
            seen = look(f"http://127.0.0.1:{server.server_address[1]}", name)
            (FOLDER / f"{name}.json").write_text(json.dumps(seen, indent=1))
            shutil.rmtree(FOLDER / f"profile-{name}", ignore_errors=True)
            faults = list(seen["errors"])
            faults += [] if "Willis summary" in seen["said"]["opened"] else ["the summary is not listed"]
            faults += [
                f"{what}: {words!r} is not shown"
                for what, words in SHOWN.get(name, ())
                if words not in seen["said"].get(what, "")
            ]
            print(f"{name}: {'; '.join(faults) or 'as it should be'}; pictures in {FOLDER}")
            wrong += bool(faults)
        server.shutdown()
    return wrong


if __name__ == "__main__":
    sys.exit(main())
