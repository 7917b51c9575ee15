"""What `willis config check` looks at.  It changes nothing: no folder is made, no table, and no file is written."""

import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from node.cli.app import as_user, not_root_s
from node.config.notifications import Target
from node.config.peer import Peer
from node.config.sections import Config, Tls, Web
from node.errors import ConfigError, NodeError, safe_message
from node.rules.health import FULL_BYTES, LOW_BYTES, certificate_trouble, is_expired
from node.workflow.health import certificate_facts, room_in
from storage.database import revision
from storage.database.inspection import inspect_database
from storage.errors import ObjectsAway, StorageError

_NO_NAMELESS_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
"""What a file system says that has none (NFS, say)."""


_STORE_SECONDS = 10.0
"""The object store has to answer within."""


@dataclass(frozen=True)
class Problem:
    """Value, cause and remedy in one line; `is_fatal`: the node cannot work with it."""

    message: str
    is_fatal: bool = True


def problems(config: Config, ask_peers: bool = False) -> Iterator[Problem]:
    """Everything that is wrong, in the order of the file."""
    yield from _ports(config)
    yield from _tls(config.node.tls, config)
    folder = list(_folder(config.storage.directory))
    yield from folder
    if owner := not_root_s(config):
        words = (
            f"root may what {owner}, whose [storage] directory is, may not: check again as that user, {as_user(owner)}"
        )
        yield Problem(words, is_fatal=False)
    if config.storage.database_url or not folder:
        yield from _database(config)
    yield from _objects(config)
    yield from _model(config)
    yield from _engine(config)
    yield from _audit(config)
    for target in config.notifications:
        yield from _target(target)
    yield from _oidc(config.web, ask_peers)
    yield from _ldap(config.web, ask_peers)
    for name, peer in config.peers.items():
        found = list(_peer(name, peer))
        yield from found
        if ask_peers and not found:
            yield from _answer(config, name, peer)


def _ports(config: Config) -> Iterator[Problem]:
    from node.net.ports import bound, port_message, ports_of

    node, web = config.node, config.web
    address = f"{node.host}:{node.port}"
    listeners = [(section, node.host, port, address) for section, port in ports_of(node).items()]
    if web.enabled:
        listeners.append(("[web]", web.host, web.port, web.address))
    for section, host, port, whose in listeners:
        try:
            bound(host, port).close()
        except (OSError, UnicodeError) as error:
            if not _is_our_own(config, whose):
                yield Problem(port_message(section, host, port, error), is_fatal=section != "[web]")


def _is_our_own(config: Config, address: str) -> bool:
    """Whether a process of this node has this address: then its ports are taken, as they should be."""
    from node.workflow.health import facts_of

    facts = facts_of(config, datetime.now(UTC))
    return any(each.details.get("address") == address and not each.is_gone for each in facts.processes)


def _tls(tls: Tls | None, config: Config) -> Iterator[Problem]:
    if tls is None:
        return
    from node.net.certificates import read_certificates
    from node.net.tls import server_context

    try:
        server_context(tls)
        facts = certificate_facts(tls)
        names = read_certificates("[node.tls] certificate", tls.certificate)[0].names
    except ConfigError as error:
        yield Problem(str(error))
        return
    now = datetime.now(UTC)
    for fact in facts:
        if trouble := certificate_trouble(fact, now):
            yield Problem(trouble, is_fatal=is_expired(fact, now) and fact.key.endswith("certificate"))
    host = config.node.host
    if not names:
        message = (
            "it bears no alternative name, and peers that check names refuse it; have one made with our host in it"
        )
        yield Problem(f"[node.tls] certificate = {str(tls.certificate)!r}: {message}", is_fatal=False)
    elif not _is_local(host) and host not in names:
        message = f"it bears {', '.join(names)} and not [node] host = {host!r}: peers that call us by that refuse it"
        yield Problem(f"[node.tls] certificate = {str(tls.certificate)!r}: {message}; have one made", is_fatal=False)


def _is_local(host: str) -> bool:
    """Whether peers call us by another name than this: any address, or one that only this machine has."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_unspecified or address.is_loopback


def _folder(folder: Path) -> Iterator[Problem]:
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if why := _why_not_writable(there):
        yield Problem(f"cannot write to {folder}: {why} ([storage] directory)")
        return
    free_bytes, error = room_in(folder)
    if error or free_bytes is None:
        yield Problem(f"[storage] directory = {str(folder)!r}: {error}")
    elif free_bytes < LOW_BYTES:
        message = f"only {free_bytes / 2**20:.0f} MiB are free there; free some, or move it"
        yield Problem(f"[storage] directory = {str(folder)!r}: {message}", is_fatal=free_bytes < FULL_BYTES)


def _why_not_writable(folder: Path) -> str:
    """Why no file can be made in the folder, "" where one can: a nameless one is, which leaves no trace."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR))
    except NotADirectoryError as error:
        return safe_message(error)
    except OSError as error:
        if error.errno not in _NO_NAMELESS_FILES:
            return safe_message(error)
        if os.statvfs(folder).f_blocks == 0:
            return "that is no disk; choose a folder on one"
        if not os.access(folder, os.W_OK | os.X_OK):
            return "permission denied; let the user that Willis runs as write there"
    return ""


def _database(config: Config) -> Iterator[Problem]:
    url, is_embedded = config.storage.url, not config.storage.database_url
    try:
        found = inspect_database(url)
    except StorageError as error:
        yield Problem(str(error))
        return
    if found.revision is not None and not found.is_current:
        if wrong := revision.why_not(found.revision, may_migrate=config.storage.migrate == "by_itself"):
            yield Problem(f"the database {wrong}")
    elif found.revision is None and url.startswith("sqlite:///"):
        folder = Path(url.removeprefix("sqlite:///")).parent
        there = next(each for each in (folder, *folder.parents) if each.exists())
        why = _why_not_writable(there) if is_embedded or folder.exists() else "check that the folder exists"
        if why:
            yield Problem(f"the database {url} cannot be made in {folder}: {why}")


def _objects(config: Config) -> Iterator[Problem]:
    """Whether the object store answers; without it the node works, and files wait."""
    from node.config.files import bucket_of
    from storage.files.objects import Objects

    bucket = bucket_of(config)
    if bucket is None:
        return
    try:
        objects = Objects(replace(bucket, timeout_seconds=min(bucket.timeout_seconds, _STORE_SECONDS)))
    except StorageError as error:
        yield Problem(str(error))
        return
    try:
        objects.check()
    except ObjectsAway as error:
        yield Problem(str(error), is_fatal=False)
    if config.storage.objects_endpoint.startswith("http://"):
        address = urlsplit(config.storage.objects_endpoint).hostname or ""
        if address not in ("localhost", "127.0.0.1", "::1"):
            words = "anybody on the way can read the images; give the store a certificate and write https"
            yield Problem(f"[storage] objects_endpoint = {config.storage.objects_endpoint!r}: {words}", is_fatal=False)


def _model(config: Config) -> Iterator[Problem]:
    from node.analysis.bundle import configured_bundle, configured_shadow
    from node.analysis.device import configured_device

    for configured in (configured_bundle, configured_device, configured_shadow):
        try:
            configured(config)
        except ConfigError as error:
            yield Problem(str(error), is_fatal=configured is not configured_shadow)


def _engine(config: Config) -> Iterator[Problem]:
    """Whether the scheduler can be reached; without it the node works, and analyses by itself."""
    from node.analysis.cluster import security_of, why_not_reached

    settings = config.ai
    if settings.engine == "local":
        return
    try:
        security_of(settings)
        why = why_not_reached(settings)
    except ConfigError as error:
        yield Problem(str(error))
        return
    address = f"[ai] engine_address = {settings.engine_address!r}"
    if why:
        yield Problem(f"{address}: {why}", is_fatal=False)
    if settings.engine_tls is None:
        words = "every user of this machine may run programs on the workers; write tls:// and [ai.engine_tls]"
        yield Problem(f"{address}: without TLS {words}", is_fatal=False)


def _audit(config: Config) -> Iterator[Problem]:
    file = config.storage.directory / config.audit.file
    if config.audit.file and file.parent != config.storage.directory:
        why = _why_not_writable(file.parent) if file.parent.is_dir() else "that folder is not there; make it"
        if why:
            yield Problem(f"[audit] file = {config.audit.file!r}: {why}")
    if config.audit.syslog_host:
        yield from _host("[audit] syslog_host", config.audit.syslog_host, config.audit.syslog_port)


def _target(target: Target) -> Iterator[Problem]:
    from node.scu.alerting import host_of

    try:
        host, port = host_of(target)
    except NodeError as error:
        yield Problem(f"[[notifications]] {error}")
        return
    if host:
        yield from _host(f"[[notifications]] name = '{target.name}': the host of its url", host, port)


def _oidc(web: Web, ask: bool) -> Iterator[Problem]:
    if web.oidc is None:
        return
    from node.runtime.clock import utc_now
    from node.web.oidc import OpenIdProvider

    settings = web.oidc
    host = _host("[web.oidc] the host of its issuer", *settings.host)
    yield from _signing_in(lambda: OpenIdProvider(settings, web.address, utc_now).metadata, host, ask)


def _ldap(web: Web, ask: bool) -> Iterator[Problem]:
    if web.ldap is None:
        return
    from node.web.directory import Directory

    settings = web.ldap
    host = _host("[web.ldap] the host of its url", *settings.host)
    yield from _signing_in(lambda: Directory(settings).check, host, ask)


def _signing_in(made: Callable[[], Callable[[], object]], host: Iterable[Problem], ask: bool) -> Iterator[Problem]:
    """Of who signs people in: one that is merely away is a warning, because local accounts go on."""
    from node.web.identity import NotAdmitted, Reason

    try:
        call = made()
    except ConfigError as error:
        yield Problem(str(error))
        return
    found = list(host)
    yield from found
    if ask and not found:
        try:
            call()
        except NotAdmitted as error:
            yield Problem(f"[web] {error}", is_fatal=error.reason is not Reason.AWAY)


def _peer(name: str, peer: Peer) -> Iterator[Problem]:
    from node.scu.dicomweb import credentials

    try:
        credentials(peer)
    except ConfigError as error:
        yield Problem(f"[peers.{name}] {error}")
    yield from _host(f"[peers.{name}] {'url' if peer.url else 'host'}", peer.host, peer.port)


def _host(key: str, host: str, port: int) -> Iterable[Problem]:
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return [Problem(f"{key} = {host!r}: {safe_message(error)}")]
    return []


def _answer(config: Config, name: str, peer: Peer) -> Iterator[Problem]:
    from node.scu.dimse import our_entity
    from node.scu.remote import remote
    from node.workflow.peer_checks import ECHO_TIMEOUTS

    try:
        remote(our_entity(config.node, ECHO_TIMEOUTS), peer).echo()
    except (NodeError, OSError) as error:
        yield Problem(f"[peers.{name}] {safe_message(error)}")
