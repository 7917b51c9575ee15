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
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
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
from node.analysis.bundle import algorithm_of
from node.cli.demo import SEEDS
from node.config.types import Region
from node.results.codes import SITES, short
from node.results.document import Algorithm, Document, NotAnalysed, Outcome, encode, percent
from node.results.identity import derive_uid
from node.results.review import Decision, Reviewed, build_review
from node.results.secondary_capture import build_summary
from node.results.segmentation import build_segmentation
from node.results.sr import build_report
from tests.support.running import cached_phantom, free_port, wait_until

FOLDER = Path("var/viewer")
OHIF = FOLDER / "tools" / "ohif" / "dist"
OPENINGS = 3
"""A study in which something is not shown is opened again, up to so many times in all."""
BONE, AMBER, MASK = (255, 255, 255), (255, 190, 60), (0, 253, 255)
HEADLINES = {True: (255, 96, 96), False: (120, 220, 120)}
TAKE_REPORT_OVER = "Do you want to continue tracking measurements for this study?"
TAKE_MASKS_OVER = "Do you want to open this Segmentation?"
WITHOUT_FINDING = "Cannot destructure property 'displaySetInstanceUID' of 'measurement'"
"""OHIF's error on every report that has no measurement."""
NOTHING_TAKEN_OVER = ("Measurements (0)", "No tracked measurements")
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

    def __init__(self, *args: Any, orthanc: httpx.Client, **kwargs: Any) -> None:
        """`orthanc`: whom to pass on to."""
        self.orthanc = orthanc
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        """Answers from Orthanc, from the bundle, or with the page."""
        path = self.path.partition("?")[0]
        if path.startswith("/dicom-web"):
            accept = {"Accept": self.headers.get("Accept", "*/*")}
            answer = self.orthanc.get(self.path, headers=accept)
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
class Sight:
    """What OHIF must say and show after a step: words that are read, and words that are not; colours on a viewport."""

    step: str
    words: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class Study:
    """What the PACS holds of one: the images around what is of interest, what is said of them, and how it is marked."""

    series: Sequence[Dataset]
    outcome: Outcome
    volume: Volume | None
    region: Region = Region.BOX_2D
    reviewed: bool = False
    """With a second finding, and a review that has rejected it."""

    @property
    def sights(self) -> list[Sight]:
        """What OHIF must say and show, step by step."""
        listed = ("Willis summary", "Willis intracranial aneurysm detection", self._first_slice)
        headline = HEADLINES[self.outcome.positive] if isinstance(self.outcome, Findings) else AMBER
        if self.reviewed:
            return [Sight("opened", listed[1:], colours=(BONE,)), *self._derived]
        return [
            Sight("opened", listed, colours=(BONE,)),
            Sight("summary", ("1/1",), colours=(headline,)),
            *self._derived,
        ]

    @property
    def positive(self) -> bool:
        return isinstance(self.outcome, Findings) and self.outcome.positive

    @property
    def _derived(self) -> list[Sight]:
        """The report and the masks, each before and after OHIF was asked to take over what is in it."""
        if isinstance(self.outcome, NotAnalysed) or not self.outcome.positive:
            return [Sight("report-before", gone=("1/1", "FPS")), Sight("report", NOTHING_TAKEN_OVER)]
        lesion = self.outcome.lesions[0]
        on_slice = (f"I:{self._key_slice_number} (", f"Diameter: {round(lesion.diameter_mm, 1):.2f} mm")
        measured = f"{lesion.diameter_mm:.1f} mm, {percent(lesion.probability)}"
        label = f"Willis: {short(lesion.location)}, {measured}, image {self._key_slice_number}"
        taken_over = ("Measurements (1)", label, SITES[lesion.location].anatomy.meaning)
        match self.region:
            case _ if self.reviewed:  # the review is shown in place of the report: of two findings there is one
                return [
                    Sight("report-before", (TAKE_REPORT_OVER, *on_slice), colours=(BONE,)),
                    Sight("report", taken_over, gone=("Measurements (2)",), colours=(BONE,)),
                ]
            case Region.CIRCLE_2D:
                return [
                    Sight("report-before", on_slice, colours=(BONE,)),
                    Sight("report", (*on_slice, *NOTHING_TAKEN_OVER), colours=(BONE,)),
                ]
            case Region.POINT_3D:
                return [
                    Sight("report-before", (TAKE_REPORT_OVER, self._first_slice), colours=(BONE,)),
                    Sight("report", taken_over, colours=(BONE,)),
                ]
        segment = ("Segmentations", f"Aneurysm 1: {lesion.location.value}")
        return [
            Sight("report-before", (TAKE_REPORT_OVER, *on_slice), colours=(BONE,)),
            Sight("report", (*taken_over, on_slice[0], "Area: "), colours=(BONE,)),
            Sight("mask-before", (TAKE_MASKS_OVER,), colours=(BONE, MASK)),
            Sight("mask", segment, colours=(BONE, MASK)),
        ]

    @property
    def _first_slice(self) -> str:
        """As OHIF numbers it."""
        return f"(1/{len(self.series)})"

    @property
    def _key_slice_number(self) -> int:
        """The Instance Number of the slice nearest to the finding."""
        assert isinstance(self.outcome, Findings)
        z = self.outcome.lesions[0].centre_lps_mm[2]
        return int(min(self.series, key=lambda ds: abs(float(ds.ImagePositionPatient[2]) - z)).InstanceNumber)


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
    made["reviewed"] = with_a_rejected_finding(found)
    made |= {"circle": replace(found, region=Region.CIRCLE_2D), "point": replace(found, region=Region.POINT_3D)}
    return {name: replace(study, series=renamed(study.series, name)) for name, study in made.items()}


def with_a_rejected_finding(found: Study) -> Study:
    """The study with one more finding, ten slices from the other, which a review has rejected."""
    assert isinstance(found.outcome, Findings)
    first = found.outcome.lesions[0]
    x, y, z = first.centre_lps_mm
    second = replace(
        first, location=Location.BASILAR_TIP, centre_lps_mm=(x - 20.0, y, z + 7.0), probability=0.7, mask=None
    )
    return replace(found, outcome=replace(found.outcome, lesions=(first, second)), reviewed=True)


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

    def document(kind: str, kinds: str, series_number: int) -> Document:
        return Document(
            study.series,
            sop_instance_uid=derive_uid(name, kind),
            series_instance_uid=derive_uid(name, kinds),
            series_number=series_number,
            report_uid=uid,
            created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            algorithm=algorithm,
        )

    for ds in study.series:
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        yield encode(ds)
    report = encode(build_report(document("report", "reports", 9901), study.outcome, region=study.region))
    yield report
    if study.reviewed:
        decisions = (Decision(), Decision("Vessel loop or curve"))
        at = datetime(2026, 1, 2, 4, tzinfo=UTC)
        yield encode(
            build_review(dcmread(BytesIO(report)), Reviewed(decisions, "Doe^Jane", "St. Elsewhere", at, uid, 1), at)
        )
        return
    if isinstance(study.outcome, Findings) and study.positive and study.region is Region.BOX_2D:
        yield encode(build_segmentation(document("mask", "masks", 9903), study.outcome))
    yield encode(build_summary(document("summary", "summaries", 9902), study.outcome, study.volume))


@contextmanager
def orthanc() -> Iterator[httpx.Client]:
    """A client of an Orthanc with DICOMweb that runs inside."""
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
    try:
        # A connection that Orthanc is about to close must not be used again.
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60, limits=limits) as client:
            wait_until(lambda: _answers(client), 60, "Orthanc answers")
            yield client
    finally:
        process.terminate()
        process.wait(20)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/dicom-web/studies").status_code == 200
    except httpx.TransportError:
        return False


def look(base: str, name: str, study: Study) -> dict[str, Any]:
    """What one opening of the study in a new browser gave; see look.cjs."""
    shutil.rmtree(FOLDER / f"profile-{name}", ignore_errors=True)
    expected = json.dumps([asdict(sight) for sight in study.sights])
    done = subprocess.run(
        ["node", "tests/viewer/look.cjs", base, derive_uid(name, "study"), name, str(FOLDER), expected],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    shutil.rmtree(FOLDER / f"profile-{name}", ignore_errors=True)
    assert done.returncode == 0, done.stderr
    seen = dict(json.loads(done.stdout.splitlines()[-1]))
    if not study.positive:
        seen["errors"] = [error for error in seen["errors"] if WITHOUT_FINDING not in error]
    (FOLDER / f"{name}.json").write_text(json.dumps(seen, indent=1))
    return seen


def openings(base: str, name: str, study: Study) -> list[dict[str, Any]]:
    """The study is opened until all is shown, or the browser sees an error: that is not forgiven."""
    seen: list[dict[str, Any]] = []
    for number in range(1, OPENINGS + 1):
        seen.append(look(base, name, study))
        if number == OPENINGS or seen[-1]["errors"] or not seen[-1]["missing"]:
            break
        for picture in FOLDER.glob(f"{name}-*.png"):  # what was not shown is looked at too
            picture.rename(FOLDER / f"again-{number}-{picture.name}")
    return seen


def main() -> int:
    """The pictures are in var/viewer; returns how many studies were not shown as they should be."""
    wrong, opened, bundle = 0, [], load_bundle()
    made = studies(bundle)
    for picture in FOLDER.glob("*.png"):
        picture.unlink()
    with orthanc() as client:
        for name, study in made.items():
            for content in files_of(name, study, algorithm_of(bundle.manifest)):
                client.post("/instances", content=content).raise_for_status()
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, orthanc=client, directory=str(OHIF)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in sys.argv[1:] or made:
            seen = openings(f"http://127.0.0.1:{server.server_address[1]}", name, made[name])
            faults = seen[-1]["errors"] + seen[-1]["missing"]
            print(f"{name}: {'; '.join(faults) or 'as it should be'}")
            for number, each in enumerate(seen, start=1):
                words = [f"drawn anew after {step}" for step in each["redrawn"]] + each["missing"]
                print(f"    opening {number}: {'; '.join(words) or 'all at once'}", flush=True)
            wrong += bool(faults)
            opened += seen
        server.shutdown()
    again, redrawn = len(opened) - len(sys.argv[1:] or made), sum(len(each["redrawn"]) for each in opened)
    print(
        f"{wrong} wrong; {len(opened)} openings, {again} of them again; drawn anew {redrawn} times; pictures in {FOLDER}"
    )
    return wrong


if __name__ == "__main__":
    sys.exit(main())
