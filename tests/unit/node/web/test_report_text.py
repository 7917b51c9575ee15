"""A report as lines to read."""

from pathlib import Path

import pytest

from node.web.report_text import Line, report_lines
from tests.support.reports import encoded


def test_a_report_is_read_with_its_names_and_values_and_without_references_to_images(tmp_path: Path) -> None:
    path = tmp_path / "report.dcm"
    path.write_bytes(encoded())
    lines = report_lines(path)
    assert any(line.value.startswith("Suspected intracranial aneurysm: ") for line in lines)
    diameters = [line for line in lines if line.value == "4.3 mm"]
    assert diameters and all(line.name == "Diameter" and line.depth > 0 for line in diameters)
    assert Line(0, "Intracranial aneurysm", "Present") in [Line(0, each.name, each.value) for each in lines]
    assert all(line.name or line.value for line in lines)


@pytest.mark.parametrize("content", [None, b"", b"no DICOM", encoded()[:600]])
def test_of_a_report_that_is_gone_or_cannot_be_read_there_is_no_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "report.dcm"
    if content is not None:
        path.write_bytes(content)
    assert report_lines(path) == []
