"""A sentence for each code that says why a series was not analysed."""

from ai.errors import Reason
from node.rules.ineligible import Ineligible


def explained(reason: str) -> str:
    """A sentence for a reason code."""
    for codes in (Reason, Ineligible):
        if reason in set(codes):
            return codes(reason).explained
    return "Another reconstruction of the same acquisition was analysed." if reason == "covered" else reason
