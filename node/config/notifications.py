"""[[notifications]]: who is told of what, when, and how; checked so that nothing is found out at night."""

import re
from collections.abc import Mapping
from datetime import datetime, time, timedelta, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from node.config.peer import wrong
from node.config.types import Section


class AlertEvent(StrEnum):
    """What can be told."""

    POSITIVE = "positive"
    """A case is worth an alert (its probability is at least the model's notify threshold) and nobody has acknowledged it."""
    TURNAROUND = "turnaround"
    """The report of a case is not delivered within `turnaround_minutes` after the last slice."""
    UNHEALTHY = "unhealthy"
    """The node is degraded or down."""


OF_CASES = (AlertEvent.POSITIVE, AlertEvent.TURNAROUND)
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class Target(Section):
    """One table of [[notifications]].  A chain is several targets whose `after_minutes` grow."""

    name: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]
    kind: Literal["apprise", "hl7", "fhir"]
    url: str = ""
    url_file: Path | None = None
    token_file: Path | None = None
    events: Annotated[tuple[AlertEvent, ...], Field(min_length=1)] = (AlertEvent.POSITIVE,)
    after_minutes: Annotated[float, Field(ge=0, le=1440)] = 0
    turnaround_minutes: Annotated[float, Field(ge=1, le=1440)] = 15
    quiet_hours: str = ""
    patient_data: bool = False

    @model_validator(mode="before")
    @classmethod
    def _fits_together(cls, values: Any) -> Any:
        """The keys.  Raises PydanticCustomError where they contradict each other."""
        if not isinstance(values, Mapping):
            return values
        name, kind, url = (values.get(key, "") for key in ("name", "kind", "url"))
        where = f"name = {name!r}"
        if bool(url) == bool(values.get("url_file")):
            raise wrong(f"{where}: write either url, or url_file with a file that holds it (it may be a secret)")
        schemes = {"hl7": ("mllp",), "fhir": ("http", "https")}.get(kind, ())
        try:  # no message has the URL: it may hold a secret
            parts = urlsplit(str(url))
            port = parts.port
        except ValueError:
            raise wrong(f"{where}: url is none: its port is a number from 1 to 65535") from None
        if url and schemes and (parts.scheme not in schemes or not parts.hostname):
            raise wrong(
                f"{where}: url begins with {parts.scheme!r}; for kind = {kind!r} write {schemes[-1]}://HOST:PORT"
            )
        if kind == "hl7" and url and not port:
            raise wrong(f"{where}: url has no port; write mllp://HOST:2575")
        events = values.get("events", ())
        if kind in ("hl7", "fhir") and isinstance(events, list | tuple) and set(events) - {AlertEvent.POSITIVE}:
            raise wrong(f'{where}: kind = {kind!r} carries results alone: events = ["positive"]')
        if (hours := values.get("quiet_hours", "")) and not _HOURS.fullmatch(str(hours)):
            raise wrong(f'{where}: quiet_hours = {hours!r} is no span of hours; write for example "22:00-06:30"')
        return values

    def address(self) -> str:
        """The URL.  Raises OSError where its file cannot be read."""
        return self.url_file.read_text("utf-8").strip() if self.url_file else self.url

    def not_before(self, at: datetime, zone: tzinfo | None) -> datetime:
        """`at`, or the end of the quiet hours that it falls into; they are those of `zone`, None: this machine's."""
        found = _HOURS.fullmatch(self.quiet_hours)
        if found is None:
            return at
        hour, minute, end_hour, end_minute = map(int, found.groups())
        begin, end, local = time(hour, minute), time(end_hour, end_minute), at.astimezone(zone)
        now = local.time()
        is_quiet = begin <= now < end if begin <= end else now >= begin or now < end
        if not is_quiet:
            return at
        until = local.replace(hour=end_hour, minute=end_minute, second=0, microsecond=0)
        return (until if until > local else until + timedelta(days=1)).astimezone(at.tzinfo)
