"""A notification goes to its target: by apprise (mail, Teams, webhooks …), HL7 v2 over MLLP, or FHIR R4 by POST.

Each raises Unavailable where trying again may help, and Refused where it will not; never a library's text, which may
hold the secret in a URL.
"""

import asyncio
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import requests

from node.config.notifications import Target
from node.errors import Refused, Unavailable, safe_message

TIMEOUT_SECONDS = 15.0
_ACCEPTED, _AGAIN = ("AA", "CA"), ("AE", "CE")
_TRANSIENT = (401, 403, 408, 425, 429)
"""After 401 and 403 the token is read again at the next attempt."""


def import_what_sends(targets: Iterable[Target]) -> None:
    """The first message need not wait for the import of what sends it, which takes a second."""
    if any(target.kind == "apprise" for target in targets):
        import apprise  # noqa: F401


def send_text(target: Target, title: str, body: str) -> None:
    """The target of kind "apprise" has taken the message.  Raises Unavailable and Refused."""
    apprise, messenger = _messenger(target)
    if not messenger.notify(body=body, title=title, body_format=apprise.NotifyFormat.TEXT):
        raise Unavailable(f"{target.name} did not take it: its server is away or refuses; look at the URL and its log")


def _messenger(target: Target) -> tuple[Any, Any]:
    """The library, which takes a while to import and which most nodes do without, and what sends.  Raises Refused."""
    import apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    messenger = apprise.Apprise()
    if not messenger.add(_address(target)):
        raise Refused(f"{target.name}: its url is none of apprise; https://appriseit.com/services lists them")
    return apprise, messenger


def host_of(target: Target) -> tuple[str, int]:
    """Host and port of a target that we call ourselves; ("", 0) of apprise's.  Raises Refused and Unavailable."""
    if target.kind == "apprise":
        _messenger(target)
        return "", 0
    host, port = _host_and_port(target)
    if target.kind == "hl7" and not port:
        raise Refused(f"{target.name}: its url has no port; write mllp://HOST:2575")
    return host, port


def _host_and_port(target: Target) -> tuple[str, int]:
    """Of a target that we call ourselves; its port is 0 where the URL of an "hl7" names none.  Raises Refused."""
    parts = urlsplit(_address(target))
    if parts.scheme not in (("mllp",) if target.kind == "hl7" else ("http", "https")) or not parts.hostname:
        raise Refused(f"{target.name}: its url_file must hold the URL of kind = '{target.kind}'")
    try:
        return parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    except ValueError:  # no message has the URL: it may hold a secret
        raise Refused(f"{target.name}: its url_file holds a URL whose port is no number from 1 to 65535") from None


def send_hl7(target: Target, message: str, control_id: str) -> None:
    """The listener has acknowledged the message.  Raises Unavailable and Refused."""
    host, port = host_of(target)
    try:
        with ThreadPoolExecutor(1) as apart:  # an event loop of its own, whatever loop the caller's thread has
            exchanged = asyncio.wait_for(_exchanged(host, port, message), TIMEOUT_SECONDS)
            answer = apart.submit(asyncio.run, exchanged).result()
        [acknowledgement] = answer.segments("MSA")
        code, of = str(acknowledgement[1]), str(acknowledgement[2])
    except TimeoutError:
        raise Unavailable(f"{target.name} did not acknowledge within {TIMEOUT_SECONDS:g} s") from None
    except OSError as error:
        raise Unavailable(f"{target.name}: {safe_message(error)}") from None
    except Exception as error:  # noqa: BLE001  the edge: whatever the library raises, that is no acknowledgement
        raise Unavailable(f"{target.name} did not answer with an acknowledgement ({type(error).__name__})") from None
    if of != control_id:
        raise Unavailable(f"{target.name} acknowledged another message")
    if code in _AGAIN:
        raise Unavailable(f"{target.name} answered {code}: an error on its side; look at its log")
    if code not in _ACCEPTED:
        raise Refused(f"{target.name} rejected the message (acknowledgement code {code}); look at its log")


async def _exchanged(host: str, port: int, message: str) -> Any:
    from hl7.mllp import open_hl7_connection

    reader, writer = await open_hl7_connection(host, port, encoding="utf-8")
    try:
        writer.writemessage(message)
        await writer.drain()
        return await reader.readmessage()
    finally:
        writer.close()


def send_fhir(target: Target, resource: dict[str, Any], if_none_exist: str) -> None:
    """The server has the resource, once.  Raises Unavailable and Refused."""
    host_of(target)
    headers = {
        "Content-Type": "application/fhir+json",
        "Accept": "application/fhir+json",
        "If-None-Exist": if_none_exist,
    }
    try:
        if target.token_file:
            headers["Authorization"] = f"Bearer {target.token_file.read_text('utf-8').strip()}"
    except OSError as error:
        raise Unavailable(f"{target.name}: token_file = '{target.token_file}': {safe_message(error)}") from None
    url = f"{_address(target).rstrip('/')}/{resource['resourceType']}"
    try:
        answer = requests.post(url, json=resource, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False)
    except requests.exceptions.SSLError:
        raise Unavailable(
            f"{target.name}: no connection: TLS; is its certificate one that this machine trusts?"
        ) from None
    except requests.Timeout:
        raise Unavailable(f"{target.name} did not answer within {TIMEOUT_SECONDS:g} s") from None
    except requests.RequestException:
        raise Unavailable(f"{target.name}: no connection, or it ended early; is its server there?") from None
    if answer.status_code in (200, 201):
        return
    if answer.status_code in _TRANSIENT or answer.status_code >= 500:
        raise Unavailable(f"{target.name} answered HTTP {answer.status_code}")
    raise Refused(f"{target.name} answered HTTP {answer.status_code}; is url that of its FHIR service?")


def _address(target: Target) -> str:
    try:
        return target.address()
    except OSError as error:
        raise Unavailable(f"{target.name}: url_file = '{target.url_file}': {safe_message(error)}") from None
