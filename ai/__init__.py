"""Pixels in, findings out: pure, no database, no network.

`predict_single_scan` is the whole package in one call.  It imports torch when it is called, not when `ai` is
imported, so that the processes that never run the network stay small.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ai.bundle import Bundle, load_bundle
    from ai.filling import fullest
    from ai.manifest import DEFAULT_BUNDLE
    from ai.predict import analyse, predict_single_scan

__all__ = ["DEFAULT_BUNDLE", "Bundle", "analyse", "fullest", "load_bundle", "predict_single_scan"]

_HOME = {
    "DEFAULT_BUNDLE": "ai.manifest",
    "Bundle": "ai.bundle",
    "load_bundle": "ai.bundle",
    "analyse": "ai.predict",
    "fullest": "ai.filling",
    "predict_single_scan": "ai.predict",
}


def __getattr__(name: str) -> Any:
    """Import the parts that need torch when they are first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'ai' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
