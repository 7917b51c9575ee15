"""Which cases the worklist shows: the filters in its address, what fits them, and each row's words.  Pure."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from node.web import wording
from storage.queries.worklist import Row
from storage.stages import Outcome

ROWS_A_PAGE = 50
SHOWN = {"open": "Open", "mine": "Mine", "done": "Acknowledged", "all": "All"}
OUTCOMES = {
    "": "Any outcome",
    "positive": "Suspected aneurysm",
    "not-analysed": "Not analysed",
    "in-work": "In work",
    "negative": "No aneurysm detected",
    "other": "Not looked for",
}
ANSWERS = tuple(outcome.value for outcome in Outcome)
"""What the column `outcome` of the view has, by which programs filter too."""
_NOT_LOOKED_FOR = 5
"""The priority of what is shown under "All" alone."""
_SEARCHED = ("patient_name", "patient_id", "accession_number", "series_description", "top_location", "study_date")


@dataclass(frozen=True)
class Query:
    """The filters.  `outcome` is one of `OUTCOMES` or `ANSWERS`; `page` counts from 1."""

    show: str = "open"
    outcome: str = ""
    words: str = ""
    page: int = 1

    @classmethod
    def of(cls, values: Mapping[str, str]) -> "Query":
        """The filters in the address; what is none is left out."""
        show, outcome, page = values.get("show", ""), values.get("outcome", ""), values.get("page", "")
        return cls(
            show if show in SHOWN else "open",
            outcome if outcome in OUTCOMES else "",
            values.get("q", "").strip()[:100],
            max(int(page), 1) if page.isascii() and page.isdecimal() and len(page) < 6 else 1,
        )

    def address(self, **changes: Any) -> str:
        """The query string with some filters changed; without `page` the first."""
        values = {"show": self.show, "outcome": self.outcome, "q": self.words, "page": 1} | changes
        default = {"show": "open", "outcome": "", "q": "", "page": 1}
        return urlencode({key: value for key, value in values.items() if value != default[key]})

    def key(self, account: str) -> Hashable:
        """What is the same for all who are shown the same cases."""
        return self.show, self.outcome, self.words, account if self.show == "mine" else ""

    def wanted(self, account: str) -> Callable[[Row], bool]:
        """Whether a case is shown to this account: a function that looks only at what the filters are about, of thousands."""
        checks = [_SHOWN[self.show]] if self.show in _SHOWN else []
        if self.show == "mine":
            checks.append(lambda row: row["assigned_to"] == account)
        if self.outcome in OUTCOMES and self.outcome:
            checks.append(lambda row: wording.KINDS[row["priority"]] == self.outcome)
        elif self.outcome:
            checks.append(lambda row: row["outcome"] == self.outcome)
        if words := self.words.casefold().split():
            checks.append(lambda row: all(word in searched_text(row) for word in words))
        return checks[0] if len(checks) == 1 else lambda row: all(check(row) for check in checks)


_SHOWN: dict[str, Callable[[Row], bool]] = {
    "open": lambda row: row["acknowledged_at"] is None and row["priority"] < _NOT_LOOKED_FOR,
    "mine": lambda row: row["acknowledged_at"] is None,
    "done": lambda row: row["acknowledged_at"] is not None,
}
"""Of the values of `show`; "all" has no condition."""


def searched_text(row: Row) -> str:
    """What is searched for words, in lower case."""
    short = wording.short_place(row["top_location"])
    return " ".join((*(row[name] or "" for name in _SEARCHED), short, f"#{row['case_id']}")).casefold()


def shown_row(row: Row, delivery: str, now: datetime) -> dict[str, Any]:
    """The words of a row."""
    verdicts = row["verdicts"]
    return {
        "case_id": row["case_id"],
        "version": row["version"],
        "kind": wording.KINDS[row["priority"]],
        "headline": wording.headline(row),
        "place": wording.short_place(row["top_location"]) if row["outcome"] == "positive" else "",
        "diameter_mm": row["diameter_mm"] if row["outcome"] == "positive" else None,
        "p": row["p_present"],
        "probability": wording.probability(row),
        "percent": wording.percent(row["p_present"]),
        "reason": wording.plain_reason(row) if row["priority"] in (2, 5) else "",
        "limited": wording.limitation(row),
        "alert": bool(row["notify"]),
        "patient": wording.person_name(row["patient_name"]),
        "patient_id": row["patient_id"],
        "accession": row["accession_number"],
        "study_date": wording.date_text(row["study_date"]),
        "series": row["series_description"],
        "slices": row["instance_count"],
        "waiting": wording.waiting(row["last_instance_at"], now),
        "last_instance_at": row["last_instance_at"].isoformat(),
        "assigned_to": row["assigned_to"],
        "acknowledged_by": row["acknowledged_by"],
        "delivery": wording.DELIVERIES.get(delivery, ""),
        "undelivered": delivery == "dead",
        "accepted": sum(each["accepted"] for each in verdicts),
        "rejected": sum(not each["accepted"] for each in verdicts),
        "can_end": row["acknowledged_at"] is None and row["priority"] != 3,
        "thumbnail": f"{row['revision']}-{row['instance_count']}" if row["priority"] in (1, 4) else "",
    }


def counts(rows: Iterable[Row]) -> dict[str, int]:
    """How many open cases there are of each kind."""
    numbers = Counter(row["priority"] for row in rows if row["acknowledged_at"] is None)
    return {kind: numbers[priority] if priority < _NOT_LOOKED_FOR else 0 for priority, kind in wording.KINDS.items()}
