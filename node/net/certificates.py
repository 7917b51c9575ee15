"""What our certificates say of themselves: until when they hold and which names they bear."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from node.config.sections import Tls
from node.errors import ConfigError, safe_message


@dataclass(frozen=True)
class Certificate:
    """One certificate of a PEM file.  `names`: its alternative names, hosts and addresses."""

    not_before: datetime
    not_after: datetime
    names: tuple[str, ...]


def read_certificates(key: str, path: Path) -> list[Certificate]:
    """The certificates in a PEM file, in its order.  Raises ConfigError, which names the configuration's `key`."""
    from cryptography import x509  # only where there is TLS: its import takes a while

    named = f"{key} = {str(path)!r}: "
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ConfigError(named + safe_message(error)) from None
    except ValueError:
        raise ConfigError(f"{named}no certificate in PEM; convert DER with `openssl x509 -inform der`") from None
    return [Certificate(one.not_valid_before_utc, one.not_valid_after_utc, _names(one)) for one in found]


def held_until(tls: Tls | None) -> dict[str, str]:
    """For a heartbeat, when our certificate is loaded: until when it holds; nothing where there is none to be read."""
    try:
        found = read_certificates("", tls.certificate) if tls is not None else []
    except ConfigError:  # health names it
        found = []
    return {"certificate_until": found[0].not_after.isoformat()} if found else {}


def _names(certificate: object) -> tuple[str, ...]:
    from cryptography import x509

    assert isinstance(certificate, x509.Certificate)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    hosts = names.get_values_for_type(x509.DNSName)
    return (*hosts, *map(str, names.get_values_for_type(x509.IPAddress)))
