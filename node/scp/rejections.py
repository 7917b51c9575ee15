"""The callers that were rejected last, in a small file of the storage folder: what `willis status` shows of them."""

import contextlib
import json
import os
import threading
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from ai.wording import counted

MOST_CALLERS = 20
_NAME = "rejected-callers.json"


@dataclass(frozen=True)
class Rejected:
    """A caller that was rejected, or a host that was, so many times; `at` is the last one."""

    calling_ae: str
    host: str
    reason: str
    remedy: str
    at: str
    times: int = 1

    @property
    def line(self) -> str:
        """One line for an administrator."""
        who = f"{self.calling_ae} at {self.host}" if self.calling_ae else self.host
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.at} {who}, {counted(self.times, 'time')}: {self.reason}{remedy}"


class Rejections:
    """Keeps the file; one process writes it, any may read it."""

    def __init__(self, directory: Path) -> None:
        """`directory` is the storage folder."""
        self._path = directory / _NAME
        self._lock = threading.Lock()
        self._known = {(each.calling_ae, each.host, each.reason): each for each in last_rejections(directory)}

    def note(self, calling_ae: str, host: str, reason: str, remedy: str, at: datetime) -> None:
        """The rejection is the newest of at most `MOST_CALLERS`.  A disk that is full costs no more than the note."""
        key = calling_ae, host, reason
        with self._lock:
            before = self._known.pop(key, None)
            new = Rejected(calling_ae, host, reason, remedy, f"{at:%Y-%m-%d %H:%M:%S}")
            self._known[key] = replace(new, times=before.times + 1) if before else new
            while len(self._known) > MOST_CALLERS:
                del self._known[next(iter(self._known))]
            with contextlib.suppress(OSError):
                temporary = self._path.with_suffix(".part")
                temporary.write_text(json.dumps([asdict(each) for each in self._known.values()], indent=1), "utf-8")
                os.replace(temporary, self._path)


def last_rejections(directory: Path) -> list[Rejected]:
    """The callers that were rejected last, the newest last; none where the file is missing or cannot be read."""
    try:
        return [Rejected(**values) for values in json.loads((directory / _NAME).read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return []
