"""The patient's earlier studies beside this one, and what became of each finding since.  Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node.rules.growth import GROWTH_ERROR_MM, Growth, growths
from node.web import wording
from storage.queries.worklist import Row

HOW = (
    "Same patient ID and issuer; findings are paired by their location label, not by registration. "
    f"± {GROWTH_ERROR_MM:.1f} mm: 95 % of the differences of two measurements of the same aneurysm, "
    "from the model's diameter error on phantoms."
)


@dataclass(frozen=True)
class EarlierCase:
    """A case of an earlier study.  `finding`: what was found, in a line."""

    case_id: int
    date: str
    kind: str
    finding: str


def earlier_cases(rows: Sequence[Row]) -> list[EarlierCase]:
    """The cases as they are listed."""
    return [
        EarlierCase(row["case_id"], wording.date_text(row["study_date"]), _kind(row), _change_in_words(row))
        for row in rows
        if row["outcome"]
    ]


def changes(row: Row, earlier: Sequence[Row]) -> Mapping[int, str]:
    """By the number of the finding: how it compares with the latest earlier study that was answered."""
    then = next((each for each in earlier if each["outcome"] in ("positive", "negative")), None)
    lesions = row["lesions"] or []
    if then is None or not lesions:
        return {}
    found = growths(_sizes(lesions), _sizes(then["lesions"] or []))
    by_location = {each.location: _change(each, row, then) for each in found}
    numbered = enumerate((lesion["location"] for lesion in lesions), start=1)
    return {number: by_location[location] for number, location in numbered if location in by_location}


def _sizes(lesions: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    return [(lesion["location"], lesion["diameter_mm"]) for lesion in lesions]


def _change(growth: Growth, row: Row, then: Row) -> str:
    date = wording.date_text(then["study_date"])
    if growth.change_mm is None:
        return f"nothing reported here on {date}"
    judged = "more than" if growth.exceeds_error else "no more than"
    measured = "two measurements differ by"
    models = "" if then["model"] == row["model"] else "; by another version of the model"
    sign = "+" if growth.change_mm >= 0 else "−"
    return (
        f"{growth.diameter_then_mm:.1f} mm on {date}: {sign} {abs(growth.change_mm):.1f} ± {GROWTH_ERROR_MM:.1f} mm, "
        f"{judged} {measured}{models}"
    )


def _kind(row: Row) -> str:
    return {"positive": "positive", "negative": "negative"}.get(row["outcome"], "not-analysed")


def _change_in_words(row: Row) -> str:
    if row["outcome"] == "positive":
        sizes = [
            f"{wording.short_place(each['location'])} {each['diameter_mm']:.1f} mm" for each in row["lesions"] or []
        ]
        return ", ".join(sizes)
    if row["outcome"] == "negative":
        limited = f", limited: {row['limits']}" if row["limits"] else ""
        return f"No aneurysm detected{limited}, {wording.probability(row)}"
    return f"Not analysed: {wording.plain_reason(row)}"
