"""TLS as PS3.15 B.9 to B.12 (BCP 195) ask: 1.2 or newer, forward secrecy, certificates on both sides."""

import hashlib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from node.config.peer import Peer
from node.config.sections import Certificates, Tls
from node.config.types import fingerprint
from node.errors import ConfigError, Unavailable, safe_message

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL:!PSK"
_OTHER_KEY = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH")
_REFUSED_US = {
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it has expired; renew [node.tls] certificate, then `willis reload`",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know our CA; give the CA of [node.tls] certificate to the peer",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants one; set [node.tls] certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "ask the peer's log for the reason",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "ask the peer's log for the reason",
}
"""Why a peer refuses our certificate, by what OpenSSL calls its alert."""
_ANOTHER = "its certificate is not the one of tls_sha256"


def server_context(settings: Tls) -> ssl.SSLContext:
    """What the TLS port answers with.  Raises ConfigError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, settings)
    context.verify_mode = ssl.CERT_REQUIRED if settings.require_peer_certificate else ssl.CERT_NONE
    return context


_held: dict[Tls, ssl.SSLContext] = {}


def held_context(settings: Tls) -> ssl.SSLContext:
    """As `client_context`, of the files as they were when this process first asked, or at the last `hold_anew`.

    Shared: not for who changes a context, as urllib3 does.
    """
    if settings not in _held:
        _held[settings] = client_context(settings)
    return _held[settings]


def hold_anew(settings: Tls) -> None:
    """What `held_context` gives from now on, also to who asks for what was held until now, is of the files as they are.

    Raises ConfigError, and what was held stays.
    """
    context = client_context(settings)
    for known in (*_held, settings):
        _held[known] = context


def client_context(settings: Tls) -> ssl.SSLContext:
    """What we open TLS connections with; the peer's certificate must fit the name.  Raises ConfigError."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, settings)


def engine_context(settings: Certificates) -> ssl.SSLContext:
    """What we reach the engine's scheduler with, which is whoever has a certificate of the CA.  Raises ConfigError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, settings, "[ai.engine_tls]")
    context.check_hostname = False
    return context


def _context(protocol: int, settings: Certificates, section: str = "[node.tls]") -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION

    def no_password() -> str:
        raise ConfigError(
            f"{section} key = {str(settings.key)!r} has a password; a node that starts by itself needs one without"
        )

    own = f"certificate = {str(settings.certificate)!r}, key = {str(settings.key)!r}"
    with _readable(f"{section} {own}", "each must be a PEM file, the certificate first in its own"):
        context.load_cert_chain(settings.certificate, settings.key, no_password)
    with _readable(f"{section} ca = {str(settings.ca)!r}", "it must hold CA certificates in PEM"):
        context.load_verify_locations(settings.ca)
    return context


@contextmanager
def _readable(what: str, remedy: str) -> Iterator[None]:
    """An OSError within, of which ssl.SSLError is one, becomes a ConfigError that names the key."""
    try:
        yield
    except OSError as error:
        why = safe_message(error)
        if isinstance(error, ssl.SSLError):
            why = f"{_in_words(error)}; {remedy} (convert DER with `openssl x509 -inform der`)"
            if error.reason in _OTHER_KEY:
                why = (
                    "this key is not the one that the certificate was made for; name the key of its request, or have a "
                    "new certificate made for this key"
                )
        raise ConfigError(f"{what}: {why}") from None


def _in_words(error: ssl.SSLError) -> str:
    return (error.reason or "not readable").lower().replace("_", " ")


def peer_name(peer: Peer) -> str:
    """The name that the peer's certificate must bear."""
    return peer.tls_name or peer.host


def check_fingerprint(peer: Peer, certificate: bytes | None) -> None:
    """The peer showed the certificate that the configuration expects.  Raises Unavailable."""
    if not _is_expected(peer, certificate):
        raise Unavailable(f"{peer.ae_title} at {peer.host}:{peer.port}: {_ANOTHER}")


def _is_expected(peer: Peer, certificate: bytes | None) -> bool:
    expected = fingerprint(peer.tls_sha256)
    return not expected or hashlib.sha256(certificate or b"").hexdigest() == expected


def connect(peer: Peer, context: ssl.SSLContext | None, timeout_seconds: float) -> socket.socket:
    """An open connection with the peer, over TLS where there is a context.  Raises OSError; see `reason_of`."""
    plain = socket.create_connection((peer.host, peer.port), timeout_seconds)
    if context is None:
        return plain
    try:
        return context.wrap_socket(plain, server_hostname=peer_name(peer))
    except BaseException:
        plain.close()
        raise


def reason_of(error: OSError | UnicodeError) -> str:
    """Why no connection came about, or no TLS on it, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        why = _REFUSED_US.get(error.reason or "")
        return f"TLS: the peer refuses our certificate: {why}" if why else f"TLS: {_in_words(error)}"
    return safe_message(error)


def reason_for_failure(peer: Peer, context: ssl.SSLContext, timeout_seconds: float) -> str:
    """Why no TLS connection comes about, "" when one does: urllib3 does not tell."""
    try:
        with connect(peer, context, timeout_seconds) as secure:
            certificate = secure.getpeercert(binary_form=True) if isinstance(secure, ssl.SSLSocket) else None
            return "" if _is_expected(peer, certificate) else f"TLS: {_ANOTHER}"
    except (OSError, UnicodeError) as error:
        return reason_of(error)
