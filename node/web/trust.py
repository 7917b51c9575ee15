"""Whose certificates are trusted of those that say who a person is."""

import ssl
from pathlib import Path

from node.errors import ConfigError


def trusted(section: str, ca: Path | None) -> ssl.SSLContext:
    """Certificates of this CA, or of the system's, for the host's name.  Raises ConfigError."""
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        cause = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"[{section}] ca = {str(ca)!r}: {cause}") from None
