"""What a series lacks is asked for at its sender, and what comes goes the way of everything that is received."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from node.dicom.conformance import IMAGE_CLASSES
from node.errors import Busy, Refused, Unavailable, safe_message
from node.runtime import log
from node.runtime.backoff import Backoff
from node.runtime.job import still_working
from node.scp.inlet import Inlet
from node.scu.remote import remote_of
from node.scu.source import Listed, Source
from node.workflow.context import Context
from storage.records import Missing, Series
from storage.store import Store

PAUSES = Backoff(first_seconds=5.0, longest_seconds=math.inf)
"""Between the attempts of one series."""
SLACK_SECONDS = 30.0
"""A retrieval is over so long after its limit."""


@dataclass(frozen=True)
class Brought:
    """What became of the instances of a series that a peer lists."""

    listed: int
    known: int
    came: int
    others: int = 0
    """Of `listed`: what is not here and is not asked for, being no image by its SOP class."""

    def __add__(self, other: "Brought") -> "Brought":
        """Of both series."""
        return Brought(
            self.listed + other.listed, self.known + other.known, self.came + other.came, self.others + other.others
        )

    @property
    def failed(self) -> int:
        """How many are still missing."""
        return self.listed - self.known - self.came - self.others


def bring(
    source: Source,
    inlet: Inlet,
    store: Store,
    series: Listed,
    on_instances: Callable[[int, int], None] = lambda _there, _listed: None,
) -> Brought:
    """What the peer lists of the series and was not known has come, or has not.  Raises Unavailable or Refused.

    `on_instances` gets how many are there, of how many, as far as the peer says so while they come.
    """
    listed = source.instances(series)
    known = listed.keys() & store.settling.held(series.series_instance_uid)
    others = {uid for uid, sop_class in listed.items() if sop_class and sop_class not in IMAGE_CLASSES} - known
    missing = listed.keys() - known - others
    on_instances(len(known), len(listed))
    if missing:
        source.retrieve(
            series,
            missing if known or others else (),
            inlet.keep,
            lambda done: on_instances(len(known) + done, len(listed)),
        )
    came = missing & store.settling.held(series.series_instance_uid)
    inlet.fell_short |= came != missing
    return Brought(len(listed), len(known), len(came), len(others))


def resume(context: Context) -> None:
    """What the node's last run was retrieving when it was killed does not wait for the limit of that retrieval."""
    try:
        if count := context.store.settling.resume_retrievals(context.clock()):
            log.get().warning("retrievals_resumed", count=count)
    except Exception as error:  # noqa: BLE001  the edge: where the database is away, the limits end by themselves
        log.get().error("retrieval_failed", error=type(error).__name__)


def retrieve(context: Context) -> int:
    """Every series that may lack instances was asked for at its sender once; returns how many instances came.

    A sender that does not answer is asked for no other in this round, which counts as an attempt of each; one that answers
    that it cannot give a series now is asked for its others.
    """
    came, away = 0, set[str]()
    while context.lacking and not context.stopping.is_set():
        _, series = context.lacking.popitem()
        still_working()
        try:
            came += _retrieve_one(context, series, away)
        except Exception as error:  # noqa: BLE001  the edge: the attempt counts, and the others go on
            log.get().error("retrieval_failed", case=series.id, error=type(error).__name__)
    return came


def _retrieve_one(context: Context, series: Series, away: set[str]) -> int:
    """The attempt is counted before it is made, so that one that kills the process counts too."""
    found, rules = context.config.peer_named(series.calling_ae), context.config.completion
    until = context.clock() + timedelta(seconds=rules.retrieve_seconds + SLACK_SECONDS)
    if found is None or not context.store.settling.begin_retrieval(series, until):
        return 0
    name, peer = found
    attempt = series.retrievals + 1
    logger = log.get().bind(case=series.id, peer=name, attempt=attempt)
    brought: Brought | None = None
    try:
        if name in away:
            raise Unavailable("it did not answer just now")
        source = remote_of(context.config, peer, context.trail, context.clock).source(rules.retrieve_seconds)
        with Inlet(context.config, context.store, context.files, peer, context.trail, context.clock) as inlet:
            brought = bring(source, inlet, context.store, Listed(series.study_instance_uid, series.series_instance_uid))
    except Unavailable as error:
        if not isinstance(error, Busy):
            away.add(name)
        logger.warning("retrieval_unanswered", error=safe_message(error))
    except Refused as error:
        attempt = rules.retrieve_attempts  # asking again will not help
        logger.error("retrieval_refused", error=safe_message(error))
    else:
        logger.info("retrieved", expected=brought.listed, instances=brought.known, count=brought.came)
    if brought and brought.listed:
        context.store.settling.note_expected_count(series.id, brought.listed, context.clock())
        context.store.settling.note_kinds(series.id, Missing(brought.failed, brought.others), context.clock())
    if brought and not brought.failed:
        attempt = rules.retrieve_attempts
    pause_seconds = PAUSES.after(attempt) if attempt < rules.retrieve_attempts else 0.0
    context.store.settling.end_retrieval(series, attempt, context.clock() + timedelta(seconds=pause_seconds))
    return brought.came if brought else 0
