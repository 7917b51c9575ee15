"""Where a bundle is, and its manifest as it is written: read without torch, which takes seconds to import."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ai.errors import BundleError

MANIFEST = "manifest.json"
DEFAULT_BUNDLE = Path(__file__).parent / "models" / "willis"


def read_document(folder: Path | str) -> dict[str, Any]:
    """The manifest's JSON object; what it says is not checked.  Raises BundleError."""
    path = Path(folder) / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}): point [ai] bundle at a folder with a {MANIFEST}"
        ) from error
    except ValueError as error:
        raise BundleError(f"{path} is not JSON: copy the bundle again") from error
    if not isinstance(document, dict):
        raise BundleError(f"{path} is not a JSON object: copy the bundle again")
    return document


def sha256_of(document: dict[str, Any]) -> str:
    """The SHA-256 of all that a manifest's file says, the digests of its weights among it, however it is laid out.

    Not of what this version of Willis makes of it: the next one has other defaults for what it does not say.
    """
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
