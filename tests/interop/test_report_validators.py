"""Three independent validators accept every shape of report: dicom3tools, dcmtk and PixelMed (the only template check).

`apt-get install dicom3tools dcmtk libpixelmed-java`.  A tool that is absent skips its tests; in CI that is a failure.
"""

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import highdicom
import numpy as np
import pytest
from pydicom import Dataset, dcmread

from ai.errors import Reason
from ai.findings import Findings, Lesion
from ai.lesion_mask import LesionMask
from ai.locations import LOCATIONS, Location
from ai.volume import volume_from_datasets
from node.config.types import Region
from node.results.document import Algorithm, Document, NotAnalysed, Outcome, Predecessor, encode
from node.results.identity import derive_uid
from node.results.review import Decision, Reviewed, build_review
from node.results.secondary_capture import build_summary
from node.results.segmentation import build_segmentation
from node.results.sr import build_report
from tests.support.absent import absent
from tests.support.dicom_factory import PHILIPS_STUDY, ct_series, enhanced_ct, headers_of
from tests.support.made_up_head import affine

pytestmark = pytest.mark.interop

PIXELMED = Path("/usr/share/java/pixelmed.jar")
DEVICE_UID_WARNING = "ContributingEquipmentSequence(0018,a001)[1]/DeviceUID(0018,1002)> - Attribute is not present"
"""dicom3tools' edition predates Device UID there; IHE AIR requires it."""
LATERALITY_WARNING = "</Laterality(0020,0060)> - is only permitted to be empty when actually unknown"
"""As it is where the images do not say what they show."""
CHARACTER_SET_WARNING = ("W: The VR checker does not support", "W: Reading unknown/unsupported SpecificCharacterSet")
"""dcmtk's dump does not know ISO 2022 code extensions, which every Japanese scanner sends."""
ACCESSION_WARNING = "Different information entities for attribute - Element=<AccessionNumber>"
"""dcentvfy counts the same attribute to another level in images than in SR; the values are equal."""
GROUP_COMMENT_WARNING = '(125007,DCM,"Measurement Group")/TEXT (121106,DCM,"Comment"): Content Item not in template'
"""PixelMed's on items that an extensible template may have beside its own: OHIF lists a finding under its comment."""
ALGORITHM = Algorithm("Willis aneurysm detection", "0.1.0+weights.1a2b", "0.1.0", derive_uid("device", "test"))

LESIONS = (
    Lesion(Location.RIGHT_MCA, 0.931, (-18.4, -28.5, 103.2), 4.26),
    Lesion(Location.ACOM, 0.7, (-18.9, -28.2, 101.2), 3.1),
    Lesion(Location.BASILAR_TIP, 0.62, (-19.2, -29.0, 101.0), 7.0),
)
POSITIVE = Findings((0.02,) * 13 + (0.957,), LESIONS, 0.5)
NEGATIVE = Findings((0.02,) * 14, (), 0.5)
EVERY_LOCATION = [
    Findings(
        (0.5,) * 14, tuple(Lesion(location, 0.5, (-19.0, -29.0, 102.0), 5.0) for location in LOCATIONS[start::2]), 0.5
    )
    for start in (0, 1)
]
JAPANESE: dict[str, Any] = {
    "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
    "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "IssuerOfPatientID": "HOSPITAL A",
    "TimezoneOffsetFromUTC": "+0900",
}
EMPTY = ("AccessionNumber", "PatientBirthDate", "PatientSex", "ReferringPhysicianName")
"""Not StudyID and StudyTime: dicom3tools warns of those being empty, in whatever object (test_report.py has them)."""


def report(headers: Sequence[Dataset], outcome: Outcome, **options: Any) -> bytes:
    uid = options.pop("report_uid", derive_uid("report", "series", 2))
    document = Document(
        headers,
        sop_instance_uid=uid,
        series_instance_uid=options.pop("series_uid", derive_uid("report series", "study")),
        series_number=9001,
        report_uid=uid,
        created=datetime(2026, 11, 23, 9, 30, 15, 250_000, tzinfo=UTC),
        algorithm=ALGORITHM,
    )
    return encode(build_report(document, outcome, **options))


def slices(**changes: Any) -> list[Dataset]:
    return headers_of(ct_series(6, **changes))


SHAPES: dict[str, Callable[[], bytes]] = {
    "positive-japanese-with-predecessor": lambda: report(
        slices(**JAPANESE), POSITIVE, predecessors=[Predecessor("2.25.1001", "2.25.71", "2.25.72")]
    ),
    "positive-multi-frame-3d-point": lambda: report(
        headers_of([enhanced_ct(ct_series(6))]), POSITIVE, region=Region.POINT_3D
    ),
    "negative-empty-attributes": lambda: report(
        slices(**dict.fromkeys(EMPTY, "")), dataclasses.replace(NEGATIVE, note="the vertex is not covered")
    ),
    "not-analysed-missing-attributes": lambda: report(
        slices(**dict.fromkeys((*EMPTY, "FrameOfReferenceUID"), None)),
        NotAnalysed(Reason.GAP, "about 3 slices missing above z = -41.50 mm"),
    ),
}
QUICK: dict[str, Callable[[], bytes]] = {
    "positive-box": lambda: report(slices(), POSITIVE, region=Region.BOX_2D),
    "positive-multi-frame-circle": lambda: report(headers_of([enhanced_ct(ct_series(6))]), POSITIVE),
    "negative-multi-frame": lambda: report(headers_of([enhanced_ct(ct_series(6), shared=False)]), NEGATIVE),
    "positive-every-location": lambda: report(slices(), EVERY_LOCATION[0]),
    "positive-every-other-location": lambda: report(slices(), EVERY_LOCATION[1]),
}
"""Checked with the two validators that take milliseconds."""


def review(*accepted: bool, **changes: Any) -> bytes:
    """Of a report on `POSITIVE`, with a decision on each of its findings."""
    made = dcmread(BytesIO(report(slices(**changes), POSITIVE)))
    decisions = tuple(Decision("" if each else "Vessel loop or curve", "Roe^Richard") for each in accepted)
    at = datetime(2026, 11, 23, 10, tzinfo=UTC)
    reviewed = Reviewed(decisions, "Müller^Jörg", "St. Elsewhere", at, str(made.SOPInstanceUID), 1, "metal artefact")
    return encode(build_review(made, reviewed, at))


REVIEWS: dict[str, Callable[[], bytes]] = {
    "review-some-rejected": lambda: review(True, False, True, **JAPANESE),
    "review-all-rejected": lambda: review(False, False, False),
    "review-all-accepted": lambda: review(True, True, True),
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    paths = {name: folder / f"{name}.dcm" for name in SHAPES | QUICK | REVIEWS}
    for name, make in (SHAPES | QUICK | REVIEWS).items():
        paths[name].write_bytes(make())
    return paths


def not_installed(what: str) -> NoReturn:
    """The validators are one package each."""
    absent(f"{what} is not installed (apt-get install dicom3tools dcmtk libpixelmed-java)")


def run(*command: str | Path) -> tuple[int, list[str]]:
    if shutil.which(str(command[0])) is None:
        not_installed(str(command[0]))
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=900, check=False)
    return done.returncode, [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]


@pytest.mark.parametrize("name", SHAPES | QUICK | REVIEWS)
def test_dciodvfy_finds_no_error_and_no_warning_but_the_allowed_one(name: str, reports: dict[str, Path]) -> None:
    status, lines = run("dciodvfy", "-new", reports[name])
    complaints = [line for line in lines if re.match(r"Error|Warning", line) and DEVICE_UID_WARNING not in line]
    assert complaints == []
    assert status == 0
    assert "Comprehensive3DSR" in lines


@pytest.mark.parametrize("name", SHAPES | QUICK)
def test_dsrdump_reads_the_whole_tree(name: str, reports: dict[str, Path]) -> None:
    status, lines = run("dsrdump", reports[name])
    complaints = [line for line in lines if re.match(r"[EWF]:", line) and not line.startswith(CHARACTER_SET_WARNING)]
    assert complaints == []
    assert status == 0
    assert any("Unverified result of a rese" in line for line in lines)
    assert any("Verification Flag" in line and "UNVERIFIED" in line for line in lines)


@pytest.mark.parametrize("name", REVIEWS)
def test_dsrdump_reads_who_verified_a_review(name: str, reports: dict[str, Path]) -> None:
    status, lines = run("dsrdump", reports[name])
    complaints = [line for line in lines if re.match(r"[EWF]:", line) and not line.startswith(CHARACTER_SET_WARNING)]
    assert (status, complaints) == (0, [])
    assert any(line.startswith("Verification Flag") and line.endswith(" VERIFIED") for line in lines)
    assert any(line.startswith("Verifying Observers") and "Muller^Jorg, St. Elsewhere" in line for line in lines)
    assert (
        sum('"Measurement Group"' in line for line in lines)
        == {"some": 2, "all": 3 * name.endswith("accepted")}[name.split("-")[1]]
    )


def test_pixelmed_finds_template_1500_in_a_review(reports: dict[str, Path]) -> None:
    lines = pixelmed_lines(reports["review-some-rejected"])
    complaints = [line for line in lines if re.match(r"Error|Warning", line)]
    assert [GROUP_COMMENT_WARNING in line for line in complaints] == [True, True]
    assert any(line.startswith("Found Root Template TID_1500") for line in lines)
    assert lines[-1] == "IOD validation complete"


def pixelmed_lines(path: Path) -> list[str]:
    """What PixelMed says of the file; its exit status is 0 whatever it finds."""
    if not PIXELMED.is_file():
        not_installed(str(PIXELMED))
    quick = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")  # it ends too soon for more: half the processor time
    limits = [f"-Djdk.xml.{limit}=0" for limit in ("xpathExprGrpLimit", "xpathExprOpLimit", "xpathTotalOpLimit")]
    validator = ("-cp", str(PIXELMED), "com.pixelmed.validate.DicomSRValidator")
    return run("java", *quick, "-Xmx1g", *limits, *validator, path)[1]


@pytest.mark.parametrize("name", SHAPES)
def test_pixelmed_finds_template_1500_and_nothing_to_complain_about(name: str, reports: dict[str, Path]) -> None:
    lines = pixelmed_lines(reports[name])
    complaints = [line for line in lines if re.match(r"Error|Warning", line)]
    assert [line for line in complaints if GROUP_COMMENT_WARNING not in line] == []
    assert len(complaints) == (len(LESIONS) if name.startswith("positive") else 0)
    assert any(line.startswith("Found Root Template TID_1500") for line in lines)
    assert lines[-1] == "IOD validation complete"


def segmentation(images: Sequence[Dataset], report_uid: str, **options: Any) -> bytes:
    """Of `POSITIVE`, with a mask of eight cells around each finding."""
    arguments: dict[str, Any] = {
        "sop_instance_uid": derive_uid("segmentation", report_uid),
        "series_instance_uid": derive_uid("segmentations", report_uid),
        "series_number": 9903,
        "report_uid": report_uid,
        "created": datetime(2026, 11, 23, 9, 30, tzinfo=UTC),
        "algorithm": ALGORITHM,
    }
    masks = [
        LesionMask(np.ones((2, 2, 2), np.bool_), affine((1.4, 1.4, 1.4), (x - 0.7, y - 0.7, z - 0.7)))
        for x, y, z in (lesion.centre_lps_mm for lesion in LESIONS)
    ]
    lesions = tuple(replace(lesion, mask=mask) for lesion, mask in zip(LESIONS, masks, strict=True))
    findings = replace(POSITIVE, lesions=lesions)
    return encode(build_segmentation(Document(headers_of(images), **arguments | options), findings))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files of `study_contents`."""
    folder, contents = tmp_path_factory.mktemp("study"), study_contents()
    paths = [folder / f"{number:02}.dcm" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def study_contents() -> list[bytes]:
    """Images, and the report, the summary and the masks of each outcome, as one study in a PACS."""
    images = ct_series(6)
    contents = [encode(ds) for ds in images]
    for name, outcome in (("p", POSITIVE), ("n", NEGATIVE), ("x", NotAnalysed(Reason.GAP, "about 3 slices"))):
        uid = derive_uid("report", name)
        contents.append(report(headers_of(images), outcome, report_uid=uid, series_uid=derive_uid("reports", name)))
        volume = None if isinstance(outcome, NotAnalysed) else volume_from_datasets(images)
        document = Document(
            slices(BodyPartExamined="HEAD") if volume is None else headers_of(images),
            sop_instance_uid=derive_uid("summary", name),
            series_instance_uid=derive_uid("summaries", name),
            series_number=9902,
            report_uid=uid,
            created=datetime(2026, 11, 23, 9, 30, tzinfo=UTC),
            algorithm=ALGORITHM,
        )
        contents.append(encode(build_summary(document, outcome, volume)))
    contents.append(segmentation(images, derive_uid("report", "p")))
    return contents


def test_dciodvfy_finds_nothing_in_a_summary_of_any_outcome_but_the_allowed_warning(study: list[Path]) -> None:
    for path in study[7:-1:2]:
        status, lines = run("dciodvfy", "-new", path)
        assert [line for line in lines if re.match(r"Error|Warning", line) and DEVICE_UID_WARNING not in line] == []
        assert (status, "SCImage" in lines) == (0, True)
        assert dcmread(path).pixel_array.shape == (1024, 1024, 3)


def test_of_a_body_part_that_nobody_knows_the_side_is_unknown_too(tmp_path: Path) -> None:
    document = Document(
        slices(),
        sop_instance_uid="2.25.81",
        series_instance_uid="2.25.82",
        series_number=9902,
        report_uid="2.25.83",
        created=datetime(2026, 11, 23, 9, 30, tzinfo=UTC),
        algorithm=ALGORITHM,
    )
    path = tmp_path / "summary.dcm"
    path.write_bytes(encode(build_summary(document, NotAnalysed(Reason.NOT_A_HEAD), None)))
    status, lines = run("dciodvfy", "-new", path)
    complaints = [line for line in lines if re.match(r"Error|Warning", line) and DEVICE_UID_WARNING not in line]
    assert [LATERALITY_WARNING in each for each in complaints] == [True]
    assert status == 0


@pytest.mark.parametrize("multi_frame", [False, True])
def test_dciodvfy_finds_nothing_in_a_segmentation_but_the_allowed_warning(tmp_path: Path, multi_frame: bool) -> None:
    images = ct_series(6, **JAPANESE)
    path = tmp_path / "seg.dcm"
    path.write_bytes(segmentation([enhanced_ct(images)] if multi_frame else images, "2.25.9"))
    status, lines = run("dciodvfy", "-new", path)
    assert [line for line in lines if re.match(r"Error|Warning", line) and DEVICE_UID_WARNING not in line] == []
    assert (status, "Segmentation" in lines) == (0, True)
    read = highdicom.seg.segread(path)
    assert read.number_of_segments == len(LESIONS)
    for lesion, tracked in zip(LESIONS, read.segment_numbers, strict=True):
        [where] = read.get_segment_numbers(segment_label=f"Aneurysm {tracked}: {lesion.location.value}")
        assert where == tracked


def test_dcentvfy_finds_images_reports_summaries_and_segmentations_to_be_of_one_patient_and_study(
    study: list[Path],
) -> None:
    _, lines = run("dcentvfy", *study)
    assert [line for line in lines if re.match(r"Error|Warning", line) and ACCESSION_WARNING not in line] == []


def test_dcentvfy_finds_a_review_to_be_of_its_report_s_series(study: list[Path], tmp_path: Path) -> None:
    report_path, path = study[6], tmp_path / "review.dcm"
    made = dcmread(report_path)
    at = datetime(2026, 11, 23, 10, tzinfo=UTC)
    decisions = (Decision(), Decision("Vein"), Decision())
    reviewed = Reviewed(decisions, "Doe^Jane", "St. Elsewhere", at, str(made.SOPInstanceUID), 1)
    path.write_bytes(encode(build_review(made, reviewed, at)))
    _, lines = run("dcentvfy", *study, path)
    assert [line for line in lines if re.match(r"Error|Warning", line) and ACCESSION_WARNING not in line] == []


def test_dcentvfy_finds_the_masks_of_two_revisions_to_agree_on_their_series(tmp_path: Path) -> None:
    """A series lives on; what describes it must not change with the revision."""
    paths = [tmp_path / "1.dcm", tmp_path / "2.dcm"]
    for hour, path in enumerate(paths, start=9):
        report_uid, created = f"2.25.{hour}", datetime(2026, 11, 23, hour, 30, tzinfo=UTC)
        path.write_bytes(segmentation(ct_series(6), report_uid, series_instance_uid="2.25.8", created=created))
    _, lines = run("dcentvfy", *paths)
    assert [line for line in lines if re.match(r"Error|Warning", line)] == []


def test_a_report_on_a_real_scanner_s_headers_passes(tmp_path: Path) -> None:
    if not PHILIPS_STUDY.is_dir():
        absent(f"the real scanner study is absent: {PHILIPS_STUDY}")
    headers = [dcmread(path, stop_before_pixels=True) for path in sorted((PHILIPS_STUDY / "S2020").glob("I*"))]
    findings = Findings((0.02,) * 13 + (0.9,), (Lesion(Location.LEFT_MCA, 0.9, (30.0, 60.0, 750.4), 5.0),), 0.5)
    path = tmp_path / "real.dcm"
    path.write_bytes(report(headers, findings))
    assert len(path.read_bytes()) < 60_000
    status, lines = run("dciodvfy", "-new", path)
    # The phantom's name, HEAD, has no caret: the scanner's own fault, copied as received.
    allowed = (DEVICE_UID_WARNING, "PatientName(0010,0010)[1]> - Value dubious")
    assert [line for line in lines if re.match(r"Error|Warning", line) and not any(a in line for a in allowed)] == []
    assert status == 0
    copied = dcmread(path)
    for keyword in ("PatientName", "PatientID", "PatientSex", "StudyInstanceUID", "AccessionNumber", "StudyID"):
        assert copied[keyword].value == headers[0][keyword].value
