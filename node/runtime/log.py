"""Logs that cannot carry patient data: an event name and allow-listed keys, nothing else.

A key that is not on the list is dropped and named in `dropped_keys`, so that its author notices; a value that is not
a number, a member of an enumeration or a short plain word is replaced by its type.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from enum import Enum
from typing import Any

import structlog

ALLOWED_KEYS = frozenset(
    {
        "event", "level", "timestamp", "process", "version",
        "case", "revision", "stage", "outcome", "reason", "evidence", "attempt", "attempts", "lease_seconds",
        "association", "calling_ae", "called_ae", "peer", "destination", "status", "error", "instances", "count", "expected",
        "delivery", "next_attempt_seconds", "seconds", "exit_code", "pid", "port", "host", "device", "model",
        "slices", "signal", "free_bytes", "sop_class", "transfer_syntax", "bytes", "where", "remedy",
    }
)  # fmt: skip
# Enough for our own messages with their remedies, among them `[section] key`, "the file's", "does `willis serve` run?" and a
# database's URL (%2F, &); what a person's name has (^) is not in it.
_PLAIN = re.compile(r"[\w .,:;/+='()\[\]?`*@%&\-]{0,500}\Z", re.ASCII)


def _allow_only(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    dropped = sorted(set(event) - ALLOWED_KEYS)
    for key in dropped:
        del event[key]
    for key, value in event.items():
        event[key] = _plain(value)
    if dropped:
        event["dropped_keys"] = ",".join(dropped)
    return event


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, str) and _PLAIN.match(value):
        return value
    return f"<{type(value).__name__}>"


def configure(form: str = "console", level: str = "info") -> None:
    """From now on every log line of this process goes to standard error, allow-listed.

    Other libraries' loggers stay silent below CRITICAL, and warnings altogether: pynetdicom prints datasets at lower
    levels, and pydicom's warnings carry values.
    """
    renderer: Any = (
        structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _allow_only,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.CRITICAL, stream=sys.stderr, force=True)
    logging.captureWarnings(True)
    for name in ("pynetdicom", "pydicom", "apscheduler", "alembic", "sqlalchemy", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def get() -> Any:
    """A logger: `log.info("event_name", case=7)`."""
    return structlog.get_logger()
