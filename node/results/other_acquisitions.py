"""What a report says of an acquisition that it is not on, and what a review makes of it.

A note names the acquisitions of a series (docs/decisions/0010-several-acquisitions.md).  The algorithm's answer on one of
the others is in words alone, nobody can accept or reject it, and so no verified document repeats it.
"""

import re

from ai.findings import Findings
from node.results.document import percent

_SUSPECTED, _NONE = "suspected aneurysm", "no aneurysm detected"
_ANSWER = re.compile(rf": (?:{_SUSPECTED}|{_NONE}), probability [^;]*%")


def answer(findings: Findings) -> str:
    """What was found in another acquisition, in words: the answer, its probability and the lesions."""
    lesions = "".join(
        f", {each.location.value} {each.diameter_mm:.1f} mm {percent(each.probability)}" for each in findings.lesions
    )
    return f"{_SUSPECTED if findings.positive else _NONE}, probability {percent(findings.present)}{lesions}"


def without_answers(note: str) -> str:
    """The note with "not assessed" in place of each `answer`."""
    return _ANSWER.sub(": not assessed", note)
