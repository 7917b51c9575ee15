"""The guides: what they name is there, and their prose fits in a line."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_OF_OURS = re.compile(r"`((?:node|storage|ai|training|tests|docs)/[\w./-]+)`")
_LINK = re.compile(r"\]\(([^)#]+)\)")


def named(guide: Path) -> list[Path]:
    """The files and folders that a guide names or links to."""
    text = guide.read_text("utf-8")
    links = [guide.parent / link for link in _LINK.findall(text) if "://" not in link]
    return [*(ROOT / path for path in _OF_OURS.findall(text)), *links]


def prose(guide: Path) -> list[str]:
    """The lines of a guide that are no table, picture or program."""
    outside = guide.read_text("utf-8").split("```")[::2]
    return [line for part in outside for line in part.splitlines() if not line.startswith(("|", "!["))]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_what_a_guide_names_is_there(guide: Path) -> None:
    assert [path for path in named(guide) if not path.exists()] == []


@pytest.mark.parametrize(
    "guide", [each for each in GUIDES if each.name != "model-card.md"], ids=lambda guide: guide.name
)
def test_the_prose_of_a_guide_fits_in_a_line(guide: Path) -> None:
    assert [line for line in prose(guide) if len(line) > 120] == []


def test_every_line_of_the_runbook_names_a_test_that_is_there() -> None:
    rows = [line for line in (ROOT / "docs" / "runbook.md").read_text("utf-8").splitlines() if line.startswith("| ")]
    named_tests = [found.groups() for row in rows if (found := re.search(r"`(tests/[\w/]+\.py)::(\w+)`", row))]
    assert len(named_tests) > 25
    assert len(named_tests) == len([row for row in rows if row.count("|") == 5]) - 6, "all but the headings"
    missing = [name for path, name in named_tests if f"def {name}(" not in (ROOT / path).read_text("utf-8")]
    assert missing == []


def test_a_guide_names_something() -> None:
    assert len(named(ROOT / "docs" / "find-your-way.md")) > 20
    assert len(prose(ROOT / "README.md")) > 50
