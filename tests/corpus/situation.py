"""What a hospital may send, as data: where the situation is known from, how it is made, and how every series must end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydicom import Dataset


@dataclass(frozen=True)
class Sending:
    """The instances of one association, in the order in which they are sent.

    `aborted`: the sender aborts after the last one instead of releasing.  `then_ends`: what was sent so far has ended
    before the next association begins.  `calling`: the sender's AE title.
    """

    instances: Sequence[Dataset]
    aborted: bool = False
    then_ends: bool = False
    calling: str = "PACS"


@dataclass(frozen=True)
class Situation:
    """`ends`: of each series in the order in which their first instances came, as outcome and reason.

    `says`: words that the worklist's detail of one of them must hold.
    """

    name: str
    source: str
    made: Callable[[], Sequence[Sending]]
    ends: tuple[str, ...]
    says: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """The ends in one line."""
        return " | ".join(self.ends)
