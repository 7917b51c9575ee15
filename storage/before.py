"""What was made of a series before: that which comes next names it, and goes where it is."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Before:
    """What was made of a series before: UIDs of the newest object of each kind, as `Queue.before` has them, and whose name it has.

    `ae_title`: as `ReportObject` has it.
    """

    uids: Mapping[str, tuple[str, ...]]
    ae_title: str
