"""The tables of the configuration file but [peers.NAME], and the whole of it."""

import types
from collections.abc import Mapping
from datetime import tzinfo
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import Field, model_validator

from node.config.notifications import Target
from node.config.peer import Peer, wrong
from node.config.sign_in import Ldap, Oidc, is_loopback
from node.config.spellings import NO_ORIGINAL, SHARP, texts
from node.config.types import (
    AETitle,
    LinkTemplate,
    Network,
    Pattern,
    Port,
    Region,
    ResultKind,
    Results,
    Seconds,
    Section,
    SopClass,
    TimezoneName,
)


class Certificates(Section):
    """Who we are over TLS, and who vouches for the others; by itself [ai.engine_tls]."""

    certificate: Path
    key: Path
    ca: Path


class Tls(Certificates):
    """[node.tls]: certificates, for the TLS port and for peers with `tls`."""

    port: Port = 2762
    required: bool = False
    require_peer_certificate: bool = True


class Node(Section):
    """[node]: our side of an association."""

    ae_title: AETitle = "WILLIS"
    host: str = "127.0.0.1"
    port: Port = 11112
    allowed_calling_ae: tuple[AETitle, ...] = ()
    allowed_networks: tuple[Network, ...] = ()
    require_called_ae: bool = False
    failed_associations: Annotated[int, Field(ge=0, le=10_000)] = 20
    failed_associations_seconds: Seconds = 60
    turned_away_seconds: Seconds = 60
    maximum_associations: Annotated[int, Field(ge=1, le=1000)] = 100
    maximum_pdu_bytes: Annotated[int, Field(ge=4096, le=1_048_576)] = 131_072
    acse_timeout_seconds: Seconds = 30
    dimse_timeout_seconds: Seconds = 60
    network_timeout_seconds: Seconds = 60
    echo_seconds: Annotated[float, Field(ge=0, le=86_400)] = 10
    stop_seconds: Annotated[float, Field(gt=0, le=10)] = 8
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 0
    storage_classes: Literal["all", "images"] = "all"
    private_storage_classes: tuple[SopClass, ...] = ()
    tls: Tls | None = None


class Storage(Section):
    """[storage]: where files and database are."""

    directory: Path = Path("var")
    database_url: str = ""
    retention_days: Annotated[float, Field(ge=0, le=36_500)] = 0
    high_water_percent: Annotated[float, Field(ge=0, lt=100)] = 0
    other_objects_hours: Annotated[float, Field(ge=0, le=876_000)] = 24
    migrate: Literal["by_command", "by_itself"] = "by_command"
    objects: Annotated[str, Field(pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w.!*'()/-]*)?)?$")] = ""
    objects_endpoint: Annotated[str, Field(pattern=r"^(https?://[^/\s]+/?)?$")] = ""
    objects_region: str = ""
    objects_credentials: str = ""
    objects_ca: str = ""
    objects_evict_hours: Annotated[float, Field(ge=0, le=876_000)] = 0

    @property
    def url(self) -> str:
        """The database's SQLAlchemy URL; without one, SQLite in the directory."""
        return self.database_url or f"sqlite:///{self.directory.absolute() / 'willis.db'}"


class Completion(Section):
    """[completion]: when a series is taken to be whole."""

    quiet_seconds: Seconds = 20
    open_association_quiet_seconds: Seconds = 60
    coverage_margin_mm: Annotated[float, Field(ge=0, le=50)] = 5
    observed_series: Annotated[int, Field(ge=0, le=100)] = 5
    retrieve_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    retrieve_seconds: Annotated[float, Field(ge=1, le=3600)] = 60


class Eligibility(Section):
    """[eligibility]: which series are analysed."""

    minimum_slices: Annotated[int, Field(ge=2, le=10_000)] = 60
    maximum_spacing_mm: Annotated[float, Field(gt=0, le=10)] = 1.5
    require_contrast: bool = True
    excluded_image_types: tuple[str, ...] = texts(NO_ORIGINAL)
    excluded_descriptions: tuple[Pattern, ...] = (
        r"\bmips?\b",
        r"\bmprs?\b",
        r"\bvrt?\b",
        r"\b(cor|sag)(onal|ittal)?\b",
    )
    sharp_kernels: tuple[Pattern, ...] = texts(SHARP)
    sibling_wait_seconds: Annotated[float, Field(ge=0, le=3600)] = 20


class Ai(Section):
    """[ai]: the analysis."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    bundle: Path | None = None
    shadow: Path | None = None
    flip: bool = False
    precision: Literal["auto", "float32"] = "auto"
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    early: bool = True
    stat_calling_ae: tuple[AETitle, ...] = ()
    engine: Literal["local", "dask"] = "local"
    engine_address: Annotated[str, Field(pattern=r"^((tcp|tls)://([\w.-]+|\[[0-9a-fA-F:]+\]):\d{1,5})?$")] = ""
    engine_tls: Certificates | None = None
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    time_limit_seconds: Annotated[float, Field(ge=1, le=7200)] = 300

    @property
    def engine_host_and_port(self) -> tuple[str, int]:
        """Of the engine's scheduler."""
        parts = urlsplit(self.engine_address)
        return parts.hostname or "", parts.port or 0

    @model_validator(mode="after")
    def _engine_can_be_trusted(self) -> "Ai":
        """Raises PydanticCustomError: whoever reaches the engine runs what he likes on its workers."""
        address = self.engine_address
        try:
            host, port = self.engine_host_and_port
        except ValueError:
            host, port = "", 0
        if address and not port:
            raise wrong(f"engine_address = {address!r}: the port is a number from 1 to 65535")
        if self.engine == "dask" and not address:
            raise wrong('engine = "dask" needs engine_address, that of its scheduler, e.g. "tls://10.1.2.3:8786"')
        if address.startswith("tls://") and self.engine_tls is None:
            raise wrong(f"engine_address = {address!r} needs [ai.engine_tls] with certificate, key and ca")
        if address.startswith("tcp://") and not is_loopback(host):
            raise wrong(
                f"engine_address = {address!r}: without TLS whoever reaches it could run programs here; write tls:// and "
                "[ai.engine_tls] (tcp:// on this machine alone)"
            )
        return self


class Reporting(Section):
    """[report]: what is sent back."""

    not_analysed: Literal["suspected", "always", "never"] = "suspected"
    region: Region = Region.CIRCLE_2D
    results: Annotated[Results, Field(min_length=1)] = ("sr",)
    series_number: Annotated[int, Field(ge=1, le=2**31 - 1)] = 9901
    timezone: TimezoneName = ""
    organization: Annotated[str, Field(max_length=64)] = ""
    review_quiet_minutes: Annotated[float, Field(ge=0, le=1440)] = 10

    @property
    def zone(self) -> tzinfo | None:
        """Of the times in results whose images name no offset; None: the machine's own."""
        return ZoneInfo(self.timezone) if self.timezone else None


class DeliverySettings(Section):
    """[delivery]: how long the outbox tries."""

    default_destination: str = ""
    first_retry_seconds: Seconds = 2
    maximum_retry_seconds: Seconds = 600
    give_up_hours: Annotated[float, Field(ge=24, le=24 * 90)] = 72
    commitment_timeout_seconds: Seconds = 3600


class Log(Section):
    """[log]: what is written to standard error."""

    format: Literal["json", "console"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Audit(Section):
    """[audit]: the audit trail of PS3.15 A.5."""

    file: str = "audit.log"
    patient_ids: bool = True
    syslog_host: str = ""
    syslog_port: Port = 6514
    syslog_tls_name: str = ""
    queue_messages: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000


class Web(Section):
    """[web]: the pages for people."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 11180
    url: Annotated[str, Field(pattern=r"^(https?://[^/\s]+)?$")] = ""
    session_hours: Annotated[float, Field(gt=0, le=168)] = 12
    failed_passwords: Annotated[int, Field(ge=1, le=100)] = 5
    locked_minutes: Annotated[float, Field(gt=0, le=1440)] = 15
    turnaround_target_seconds: Seconds = 300
    open_metrics: bool = False
    oidc: Oidc | None = None
    ldap: Ldap | None = None
    links: Mapping[str, LinkTemplate] = Field(default_factory=lambda: types.MappingProxyType({}))

    @property
    def address(self) -> str:
        """The URL under which people reach the pages."""
        return self.url or f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Canary(Section):
    """[canary]: a synthetic series that goes the way of every series, to see whether it is answered rightly."""

    minutes: Annotated[float, Field(ge=0, le=1440)] = 0
    late_seconds: Seconds = 180


class Drift(Section):
    """[drift]: whether scanners have changed."""

    baseline_weeks: Annotated[float, Field(ge=0, le=520)] = 4


def _overlap(host: str, other: str) -> bool:
    """Whether nobody else can listen at the one address where somebody does at the other, as far as names tell."""
    one, two = ({"localhost": "127.0.0.1"}.get(each, each) for each in (host, other))
    if (":" in one) != (":" in two):
        return False
    return one == two or bool({one, two} & {"0.0.0.0", "::"})  # noqa: S104


class Config(Section):
    """The whole file."""

    node: Node = Node()
    storage: Storage = Storage()
    completion: Completion = Completion()
    eligibility: Eligibility = Eligibility()
    ai: Ai = Ai()
    report: Reporting = Reporting()
    delivery: DeliverySettings = DeliverySettings()
    log: Log = Log()
    audit: Audit = Audit()
    web: Web = Field(default_factory=Web)
    canary: Canary = Canary()
    drift: Drift = Drift()
    notifications: tuple[Target, ...] = ()
    peers: Mapping[str, Peer] = Field(default_factory=lambda: types.MappingProxyType({}))

    @model_validator(mode="after")
    def _destinations_exist(self) -> "Config":
        wanted = [("[delivery] default_destination", self.delivery.default_destination)]
        wanted += [(f"[peers.{name}] destination", to) for name, peer in self.peers.items() for to in peer.named]
        for key, name in wanted:
            if name and name not in self.peers:
                known = ", ".join(self.peers) or "none"
                raise ValueError(f"{key} = {name!r} is not a configured peer; peers are: {known}")
        return self

    @model_validator(mode="after")
    def _stat_sites_may_send(self) -> "Config":
        may = self.allowed_calling_ae
        if may and (unknown := [name for name in self.ai.stat_calling_ae if name not in may]):
            raise ValueError(
                f"[ai] stat_calling_ae = {unknown[0]!r} may not send here, so none of its series would ever come first; write "
                f"an AE title of [peers.NAME] or [node] allowed_calling_ae: {', '.join(may)}"
            )
        return self

    @model_validator(mode="after")
    def _reviews_can_be_made(self) -> "Config":
        for name, peer in self.peers.items():
            if not peer.reviews:
                continue
            if not self.report.organization.strip():
                raise ValueError(
                    f"[peers.{name}] reviews = true needs [report] organization: whoever verifies a report does so for one"
                )
            if "sr" not in (peer.results or self.report.results):
                raise ValueError(
                    f'[peers.{name}] reviews = true needs "sr" among its results: a review replaces a report'
                )
        return self

    @model_validator(mode="after")
    def _people_come_back_from_a_provider(self) -> "Config":
        if self.web.oidc is not None and not self.web.url and not is_loopback(self.web.host):
            raise ValueError(
                f"[web.oidc] with [web] host = {self.web.host!r} needs [web] url, which people open and come back to"
            )
        return self

    @model_validator(mode="after")
    def _targets_have_names_of_their_own(self) -> "Config":
        names = [target.name for target in self.notifications]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"[[notifications]] name = {twice[0]!r} is there twice; give each target one of its own")
        return self

    @model_validator(mode="after")
    def _tls_has_certificates(self) -> "Config":
        if self.audit.syslog_host and self.node.tls is None:
            raise ValueError("[audit] syslog_host needs [node.tls] with certificate, key and ca")
        knows_callers = self.node.tls is not None and self.node.tls.require_peer_certificate
        for name, peer in self.peers.items():
            if peer.tls and self.node.tls is None:
                raise ValueError(f"[peers.{name}] tls = true needs [node.tls] with certificate, key and ca")
            if peer.tls_subject and not knows_callers:
                raise ValueError(f"[peers.{name}] tls_subject needs [node.tls] with require_peer_certificate = true")
            if peer.tls_sha256 and not peer.url and self.node.tls is None:
                raise ValueError(f"[peers.{name}] tls_sha256 needs [node.tls]: without TLS no certificate is seen")
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> "Config":
        ports = {"[node]": (self.node.host, self.node.port)}
        if self.node.tls is not None:
            ports["[node.tls]"] = (self.node.host, self.node.tls.port)
            if self.node.tls.required:
                del ports["[node]"]
        if self.web.enabled:
            ports["[web]"] = (self.web.host, self.web.port)
        for (one, (host, port)), (other, (other_host, other_port)) in combinations(ports.items(), 2):
            if port == other_port and _overlap(host, other_host):
                raise ValueError(f"{other} port = {other_port} is that of {one} too; give each a port of its own")
        return self

    @property
    def allowed_calling_ae(self) -> tuple[str, ...]:
        """Who may send to us: every peer and whoever is listed.  Nobody configured: everybody."""
        return tuple(dict.fromkeys((*(peer.ae_title for peer in self.peers.values()), *self.node.allowed_calling_ae)))

    def peer_named(self, calling_ae: str) -> tuple[str, Peer] | None:
        """Name and settings of the peer with this AE title."""
        return next(((name, peer) for name, peer in self.peers.items() if peer.ae_title == calling_ae), None)

    def destinations(self, calling_ae: str) -> tuple[str, ...]:
        """The names of the peers that receive the reports of what `calling_ae` sent."""
        found = self.peer_named(calling_ae)
        if found:
            return found[1].named or (found[0],)
        return (self.delivery.default_destination,) if self.delivery.default_destination else ()

    def reviewing(self, calling_ae: str) -> dict[Region, tuple[str, ...]]:
        """The destinations of what `calling_ae` sent that get reviews of the reports, by how those mark a finding."""
        found = {
            region: tuple(name for name in names if self.peers[name].reviews)
            for region, names in self.getting("sr", calling_ae).items()
        }
        return {region: names for region, names in found.items() if names}

    def getting(self, result: ResultKind, calling_ae: str) -> dict[Region, tuple[str, ...]]:
        """The destinations of what `calling_ae` sent that get such a result, by how it marks a finding."""
        chosen: dict[Region, tuple[str, ...]] = {}
        for name in self.destinations(calling_ae):
            peer = self.peers[name]
            if result in (peer.results or self.report.results):
                region = peer.region or self.report.region
                chosen[region] = (*chosen.get(region, ()), name)
        return chosen
