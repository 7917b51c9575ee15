"""The configuration: one TOML file, each key overridable by `WILLIS_SECTION__KEY`, checked before anything starts."""

import difflib
import os
import re
import tomllib
import types
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from node.config import peer as peer_rules
from node.errors import ConfigError

AETitle = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$")
]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
ResultKind = Literal["sr", "sc", "seg"]
Marking = Literal["2d", "box", "3d"]
PREFIX = "WILLIS_"


def _checked_results(kinds: tuple[ResultKind, ...]) -> tuple[ResultKind, ...]:
    """`kinds`.  Raises ValueError when nothing would come of a negative series: silence must not look like one."""
    if kinds and set(kinds) == {"seg"}:
        raise ValueError('"seg" is made of findings only; name "sr" or "sc" beside it')
    return kinds


Results = Annotated[tuple[ResultKind, ...], AfterValidator(_checked_results)]


def _checked_pattern(pattern: str) -> str:
    """`pattern`.  Raises ValueError when it is not a regular expression: it must not fail at the first series."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_checked_pattern)]


def _checked_network(text: object) -> IPv4Network | IPv6Network:
    """The network.  Raises ValueError."""
    try:
        return ip_network(text if isinstance(text, IPv4Network | IPv6Network) else str(text))
    except ValueError as error:
        raise ValueError(f"{error}; write for example 10.1.0.0/16 or 10.1.2.3") from None


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_checked_network)]


def fingerprint(text: str) -> str:
    """A SHA-256 fingerprint as hashlib writes it."""
    return text.replace(":", "").lower()


class Section(BaseModel):
    """A table of the file.  Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Tls(Section):
    """[node.tls]: certificates, for the TLS port and for peers with `tls`."""

    certificate: Path
    key: Path
    ca: Path
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
    stop_seconds: Annotated[float, Field(gt=0, le=10)] = 8
    tls: Tls | None = None


class Storage(Section):
    """[storage]: where files and database are."""

    directory: Path = Path("var")
    database_url: str = ""
    retention_days: Annotated[float, Field(ge=0, le=36_500)] = 0
    high_water_percent: Annotated[float, Field(ge=0, lt=100)] = 0

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
    excluded_image_types: tuple[str, ...] = (
        "LOCALIZER",
        "MPR",
        "MIP",
        "MINIP",
        "PROJECTION IMAGE",
        "REFORMATTED",
        "VOLUME RENDERING",
        "CURVED",
        "SCREEN SAVE",
    )
    excluded_descriptions: tuple[Pattern, ...] = (r"\bmip\b", r"\bmpr\b", r"\bvrt?\b", r"\b(cor|sag)(onal|ittal)?\b")
    sharp_kernels: tuple[Pattern, ...] = (
        r"^[bhjq][a-z]?[5-9]\d",
        r"bone",
        r"edge",
        r"lung",
        r"sharp",
        r"^y[a-f]$",
        r"^fc[35-8]\d",
    )
    sibling_wait_seconds: Annotated[float, Field(ge=0, le=3600)] = 20


class Ai(Section):
    """[ai]: the analysis."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    bundle: Path | None = None
    flip: bool = False
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    time_limit_seconds: Annotated[float, Field(ge=1, le=7200)] = 300


class Reporting(Section):
    """[report]: what is sent back."""

    not_analysed: Literal["suspected", "always", "never"] = "suspected"
    region: Marking = "2d"
    results: Annotated[Results, Field(min_length=1)] = ("sr",)
    series_number: Annotated[int, Field(ge=1, le=2**31 - 1)] = 9901


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


class Peer(Section):
    """[peers.NAME]: a PACS or a modality, reached by DIMSE, or by DICOMweb where it has a `url`."""

    ae_title: AETitle
    host: str
    port: Port
    url: str = ""
    username: str = ""
    password_file: str = ""
    token_file: str = ""
    answers_queries: bool = False
    series_on_one_association: bool = False
    retrieve: Literal["", "move", "get", "wado"] = ""
    storage_commitment: bool = False
    tls: bool = False
    tls_name: str = ""
    tls_sha256: Annotated[str, Field(pattern=r"^(([0-9A-Fa-f]{2}:?){32})?$")] = ""
    tls_subject: str = ""
    networks: tuple[Network, ...] = ()
    destination: str | tuple[str, ...] = ""
    results: Results = ()
    region: Literal["", "2d", "box", "3d"] = ""

    @model_validator(mode="before")
    @classmethod
    def _address_of_url(cls, values: Any) -> Any:
        return peer_rules.with_address(values)

    @model_validator(mode="after")
    def _keys_fit(self) -> "Peer":
        peer_rules.check(self)
        return self

    @property
    def named(self) -> tuple[str, ...]:
        """The peers that get the reports instead of this one, each once."""
        names = (self.destination,) if isinstance(self.destination, str) else self.destination
        return tuple(dict.fromkeys(name for name in names if name))


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
    peers: Mapping[str, Peer] = Field(default_factory=lambda: types.MappingProxyType({}))

    @model_validator(mode="after")
    def _destinations_exist(self) -> "Config":
        wanted = [("[delivery] default_destination", self.delivery.default_destination)]
        wanted += [(f"[peers.{name}] destination", to) for name, peer in self.peers.items() for to in peer.named]
        for key, name in wanted:
            if name and name not in self.peers:
                raise ValueError(
                    f"{key} = {name!r} is not a configured peer; peers are: {', '.join(self.peers) or 'none'}"
                )
        return self

    @model_validator(mode="after")
    def _tls_has_certificates(self) -> "Config":
        if self.audit.syslog_host and self.node.tls is None:
            raise ValueError("[audit] syslog_host needs [node.tls] with certificate, key and ca")
        for name, peer in self.peers.items():
            if peer.tls and self.node.tls is None:
                raise ValueError(f"[peers.{name}] tls = true needs [node.tls] with certificate, key and ca")
            if peer.tls_subject and not (self.node.tls and self.node.tls.require_peer_certificate):
                raise ValueError(f"[peers.{name}] tls_subject needs [node.tls] with require_peer_certificate = true")
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

    def getting(self, result: ResultKind, calling_ae: str) -> dict[Marking, tuple[str, ...]]:
        """The destinations of what `calling_ae` sent that get such a result, by how it marks a finding."""
        chosen: dict[Marking, tuple[str, ...]] = {}
        for name in self.destinations(calling_ae):
            peer = self.peers[name]
            if result in (peer.results or self.report.results):
                region = peer.region or self.report.region
                chosen[region] = (*chosen.get(region, ()), name)
        return chosen


def load(path: Path | None, environment: Mapping[str, str] = os.environ) -> Config:
    """The configuration in `path` (None: the defaults), with what `environment` overrides.

    Raises ConfigError: one line that names the key, the value and the remedy.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; name the file with --config") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not TOML: {error}") from None
    _override(values, environment)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path or 'configuration'}: {_first_line(error)}") from None


def _override(values: dict[str, Any], environment: Mapping[str, str]) -> None:
    for name, text in sorted(environment.items()):
        if not name.startswith(PREFIX) or "__" not in name:
            continue
        *sections, key = name.removeprefix(PREFIX).split("__")
        table: Any = values
        for section in sections:
            table = table.setdefault(_matching(table, section), {})
            if not isinstance(table, dict):
                raise ConfigError(f"{name}: {section.lower()!r} is not a section")
        table[_matching(table, key)] = _toml_value(text)


def _matching(table: Mapping[str, Any], name: str) -> str:
    """The key of `table` that `name` means, whatever its case (peers keep theirs)."""
    return next((key for key in table if key.lower() == name.lower()), name.lower())


def _toml_value(text: str) -> Any:
    """`text` as a TOML value where it is one (numbers, booleans, lists), else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _first_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(location[-1], _keys(location[:-1]), n=1, cutoff=0.4)
        return f"unknown key {key}{f'; did you mean {near[0]}?' if near else ''}"
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == peer_rules.WRONG:
        return f"[{key}] {first['msg']}"
    if not location:
        return str(first["ctx"]["error"])
    return f"{key} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _keys(path: list[str]) -> Iterator[str]:
    """The keys that the section at `path` knows."""
    section: type[BaseModel] = Config
    for part in path:
        section = Peer if section is Config and part == "peers" else _section_type(section, part)
    yield from section.model_fields


def _section_type(section: type[BaseModel], part: str) -> type[BaseModel]:
    field = section.model_fields.get(part)
    kinds = [field.annotation, *get_args(field.annotation)] if field else []
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), section)
