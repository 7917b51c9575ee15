"""Studies in OHIF: the pictures in var/viewer are to be looked at; what can be checked by text is checked.

The shipped model finds what is shown.  Orthanc with its DICOMweb plug-in holds a positive study, marked in each way, a
negative and a not analysed one; one server on loopback gives OHIF's bundle and passes `/dicom-web` on to Orthanc, so
that all has one origin.
"""

import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from pydicom import Dataset, dcmread

import ai
from ai.bundle import Bundle, load_bundle
from ai.coverage import head_extent
from ai.errors import NotAnalysable
from ai.findings import Findings
from ai.locations import Location
from ai.volume import Volume, volume_from_datasets
from node.commands.demo import SEEDS
from node.key_image import build_summary
from node.report import Algorithm, NotAnalysed, Outcome, Region, build_report, derive_uid, encode
from node.report_codes import SITES
from node.segmentation import build_segmentation
from node.worker import algorithm_of
from tests.running import cached_phantom, free_port, wait_until

FOLDER = Path("var/viewer")
OHIF = FOLDER / "tools" / "ohif" / "dist"
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
        with suppress(BrokenPipeError):  # the page was left
            self.wfile.write(content)

    def end_headers(self) -> None:
        """Isolated, so that the viewer may share memory with its workers."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Study:
    """What the PACS holds of one: the images around what is of interest, what is said of them, and how it is marked."""

    series: Sequence[Dataset]
    outcome: Outcome
    volume: Volume | None
    region: Region = Region.BOX_2D

    @property
    def shown(self) -> list[tuple[str, str]]:
        """What OHIF must say of it, by what was looked at: before and after it was asked to take the finding over."""
        if isinstance(self.outcome, NotAnalysed) or not self.outcome.positive:
            return []
        lesion = self.outcome.lesions[0]
        on_slice = [("report-before", f"Diameter: {round(lesion.diameter_mm, 1):.2f} mm")]
        words = ("Measurements (1)", "Intracranial aneurysm", SITES[lesion.location].anatomy.meaning)
        listed = [("report", each) for each in words]
        match self.region:
            case Region.CIRCLE_2D:
                return on_slice
            case Region.POINT_3D:
                return listed
        return [*on_slice, *listed, ("mask", f"Aneurysm 1: {lesion.location.value}")]


def studies(bundle: Bundle) -> dict[str, Study]:
    """Phantoms with what the model finds in them, the positive one marked in each way; and one with a gap."""
    positive = cached_phantom(
        "positive", seed=SEEDS["positive"], positive=True, location=Location.LEFT_MCA, diameter_mm=8.0, matrix=384, spacing_mm=0.7
    )  # fmt: skip
    negative = cached_phantom("negative", seed=SEEDS["negative"], positive=False, matrix=384, spacing_mm=0.7)
    found, plain = analysed(positive, bundle), analysed(negative, bundle)
    gap = [*plain.series[:40], *plain.series[43:]]
    try:
        volume_from_datasets(gap)
    except NotAnalysable as error:
        broken = Study(gap, NotAnalysed(error.reason, error.detail), None)
    made = {"positive": found, "negative": plain, "not-analysed": broken}
    made |= {"circle": replace(found, region=Region.CIRCLE_2D), "point": replace(found, region=Region.POINT_3D)}
    return {name: replace(study, series=renamed(study.series, name)) for name, study in made.items()}


def analysed(paths: Sequence[Path], bundle: Bundle) -> Study:
    """The findings in the whole series, and 90 of its slices around them or around the circle of Willis."""
    every = sorted((dcmread(path) for path in paths), key=lambda ds: float(ds.ImagePositionPatient[2]))
    volume = volume_from_datasets(every)
    findings = ai.analyse(volume, bundle)
    middle = head_extent(volume).circle_centre_lps_mm
    _, _, z = findings.lesions[0].centre_lps_mm if findings.lesions else middle or (0.0, 0.0, 0.0)
    nearest = min(range(len(every)), key=lambda i: abs(float(every[i].ImagePositionPatient[2]) - z))
    return Study(every[max(nearest - 45, 0) : nearest + 45], findings, volume)


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


def files_of(name: str, study: Study, algorithm: Algorithm) -> Iterator[bytes]:
    """The study as the PACS holds it: images, report, summary, and masks where findings are marked by a box."""
    uid = derive_uid(name, "report")
    common: dict[str, Any] = {"created": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "algorithm": algorithm}
    for ds in study.series:
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        yield encode(ds)
    yield encode(
        build_report(
            study.series, study.outcome, report_uid=uid, series_uid=derive_uid(name, "reports"), series_number=9901,
            region=study.region, **common,
        )
    )  # fmt: skip
    if isinstance(study.outcome, Findings) and study.outcome.positive and study.region is Region.BOX_2D:
        yield encode(
            build_segmentation(
                study.series, study.outcome, segmentation_uid=derive_uid(name, "mask"),
                series_uid=derive_uid(name, "masks"), series_number=9903, report_uid=uid, **common,
            )
        )  # fmt: skip
    yield encode(
        build_summary(
            study.series, study.outcome, study.volume, summary_uid=derive_uid(name, "summary"),
            series_uid=derive_uid(name, "summaries"), series_number=9902, report_uid=uid, **common,
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
    wrong, bundle = 0, load_bundle()
    made = studies(bundle)
    with orthanc() as url:
        for name, study in made.items():
            for content in files_of(name, study, algorithm_of(bundle.manifest)):
                httpx.post(f"{url}/instances", content=content, trust_env=False, timeout=60).raise_for_status()
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, orthanc=url, directory=str(OHIF)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in sys.argv[1:] or made:
            seen = look(f"http://127.0.0.1:{server.server_address[1]}", name)
            (FOLDER / f"{name}.json").write_text(json.dumps(seen, indent=1))
            shutil.rmtree(FOLDER / f"profile-{name}", ignore_errors=True)
            faults = list(seen["errors"])
            faults += [] if "Willis summary" in seen["said"]["opened"] else ["the summary is not listed"]
            faults += [
                f"{what}: {words!r} is not shown"
                for what, words in made[name].shown
                if words not in seen["said"].get(what, "")
            ]
            print(f"{name}: {'; '.join(faults) or 'as it should be'}; pictures in {FOLDER}", flush=True)
            wrong += bool(faults)
        server.shutdown()
    return wrong


if __name__ == "__main__":
    sys.exit(main())
