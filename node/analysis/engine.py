"""Analyses are placed on the workers of a Dask cluster, below the claim: what it loses, the claimant does anew.

The claim, its lease, its attempts and what is done stay in the database, and the claimant records the answer.  A worker
offers a resource that names its Willis and its model, and a task asks for that: one of another version is never given it.
"""

import pickle
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from ai.wording import counted
from node.analysis.cluster import (
    ANSWERED,
    BEGUN,
    FAILED,
    REACHED_WITHIN_SECONDS,
    TASK,
    Loop,
    configure_library,
    look_at_scheduler,
    security_of,
    why_not_reached,
)
from node.analysis.drafts import Answer, Order, Settings
from node.analysis.task import answer
from node.config.sections import Config
from node.errors import ConfigError
from node.runtime import log
from node.runtime.backoff import Backoff
from storage.records import Claim

if TYPE_CHECKING:
    from distributed import Client, Future

AWAY = Backoff(first_seconds=2.0, longest_seconds=60.0)
"""The pauses until it is tried again, while it is away or refuses what it is given; meanwhile the claimant analyses."""
_LOOK_SECONDS, _STALE_SECONDS = 1.0, 10.0
"""Between two looks at the scheduler; without a look for so long it is away."""
_LOST = ("cancelled", "lost")


class _NotReached(Exception):
    """No connection with the scheduler comes about; the message says why."""


class How(Enum):
    """What came of a task."""

    ANSWERED = auto()
    FAILED = auto()
    """The analysis did, or killed its process: it costs an attempt, as it would here."""
    REFUSED = auto()
    """That worker cannot do it: it is for the claimant to do."""
    LOST = auto()
    """The engine has forgotten it, or never began it: it costs no attempt."""


@dataclass(frozen=True)
class Ended:
    """A task that is over: its claim, and the answer, or in words why there is none."""

    claim: Claim
    how: How
    answer: Answer | None = None
    why: str = ""


@dataclass(frozen=True)
class _Placed:
    claim: Claim
    future: "Future[Any]"
    deadline: float


@dataclass(frozen=True)
class _Look:
    """When the scheduler was looked at, the workers that fit, and how many tasks of other claimants it then had."""

    at: float
    workers: int
    others: int


class Engine:
    """The cluster of [ai] engine_address.  A thread keeps the connection; all methods are called by one other thread."""

    def __init__(
        self, config: Config, model: str, on_news: Callable[[], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`model`: as `model_name` says.  Raises ConfigError.

        `on_news` is called, in any thread, when a task is over, or when the engine begins or ceases to take more.
        """
        self.model = model
        self._security = security_of(config.ai)
        self._config, self._on_news, self._monotonic = config, on_news, monotonic
        self._client: Client | None = None
        self._placed: list[_Placed] = []
        self._own = f"{TASK}{secrets.token_hex(8)}-"
        self._begun: set[str] = set()
        self._spared: set[int] = set()
        self._look = _Look(-_STALE_SECONDS, 0, 0)
        self._away, self._refusal = "it was not reached yet", ""
        self._refusals, self._refused_until = 0, 0.0
        self._loop = Loop()
        self._stopping, self._tried = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="engine", daemon=True)

    def start(self) -> None:
        """It was tried to reach it; it is looked at from now on."""
        self._loop.start()
        self._thread.start()
        self._tried.wait(REACHED_WITHIN_SECONDS)

    def stop(self) -> None:
        """It is left, and what it has of ours it forgets."""
        self._stopping.set()
        self._thread.join(REACHED_WITHIN_SECONDS)
        self._leave()
        self._loop.stop()

    @property
    def trouble(self) -> str:
        """Why the claimant analyses what the engine should, "" where it need not."""
        why = self._away or ("" if self._is_fresh() else "its scheduler does not answer") or self._refusal
        return f"[ai] engine_address = {self._config.ai.engine_address!r}: {why}" if why else ""

    @property
    def details(self) -> dict[str, Any]:
        """For the heartbeat."""
        return {"workers": self._look.workers if self._is_fresh() else 0, "trouble": self.trouble}

    @property
    def serves(self) -> bool:
        """Whether it has workers for us; else the claimant analyses."""
        return self._is_fresh() and self._look.workers > 0 and self._monotonic() >= self._refused_until

    @property
    def is_full(self) -> bool:
        """Whether each of its workers has something to do, so that nothing more is to be claimed for it."""
        return self.serves and self._look.others + len(self._placed) >= self._look.workers

    @property
    def has_any(self) -> bool:
        """Whether it has tasks of ours."""
        return bool(self._placed)

    def place(self, claim: Claim, order: Order, model: str) -> bool:
        """Whether the engine has it; not where it is away or full.  `model`: the version that its results are to carry."""
        client, config = self._client, self._config
        if client is None or not self.serves or self.is_full:
            return False
        packed = pickle.dumps((order, Settings.of(config, model)))
        try:
            future = client.submit(
                answer,
                self.model,
                packed,
                key=f"{self._own}{secrets.token_hex(8)}",
                resources={self.model: 1},
                pure=False,
            )
            future.add_done_callback(lambda _future: self._on_news())
        except Exception as error:  # noqa: BLE001  the edge: whatever the library raises, the claimant analyses
            log.get().warning("engine_failed", error=type(error).__name__)
            return False
        deadline = self._monotonic() + config.ai.time_limit_seconds
        self._placed.append(_Placed(claim, future, deadline))
        log.get().info("placed", case=claim.series.id, bytes=len(packed))
        return True

    def forget(self) -> None:
        """It has no task of ours any longer."""
        for each in self._placed:
            with suppress(Exception):
                each.future.release()
        self._placed.clear()
        self._begun.clear()

    def ended(self) -> Ended | None:
        """One of the tasks that are over, which is forgotten; None where none is."""
        for each in self._placed:
            if ended := self._ended(each):
                self._placed.remove(each)
                self._begun.discard(each.future.key)
                with suppress(Exception):
                    each.future.release()  # `cancel` waits for the client, for ever while that is being closed
                return ended
        return None

    def _ended(self, placed: _Placed) -> Ended | None:
        status = placed.future.status
        if status in _LOST or (status == "pending" and not self._is_fresh()):
            return self._lost(placed.claim, "the engine has lost it")
        if status == "pending":
            late = self._monotonic() > placed.deadline
            return Ended(placed.claim, self._cost(placed), why="TimeLimit") if late else None
        try:
            how, value = placed.future.result(timeout=REACHED_WITHIN_SECONDS)
            found = pickle.loads(value) if how == ANSWERED else None  # noqa: S301  from a worker of our CA and version
        except Exception as error:  # noqa: BLE001  the edge: a task of ours raises nothing, what comes is the library's
            kind = type(error).__name__
            if kind == "KilledWorker":
                return Ended(placed.claim, self._cost(placed), why=kind)
            if placed.future.status in _LOST:
                return self._lost(placed.claim, kind)
            return self._refused(placed.claim, f"what a worker answered cannot be used ({kind}); is its Willis ours?")
        if found is not None:
            self._refusals, self._refusal = 0, ""
            self._spared.discard(placed.claim.series.id)
            return Ended(placed.claim, How.ANSWERED, found)
        return Ended(placed.claim, How.FAILED, why=value) if how == FAILED else self._refused(placed.claim, value)

    def _cost(self, placed: _Placed) -> How:
        """FAILED; LOST where it had not begun but waited behind another, which is believed of a series once."""
        case = placed.claim.series.id
        if placed.future.key in self._begun or case in self._spared:
            self._spared.discard(case)
            return How.FAILED
        self._spared.add(case)
        return How.LOST

    def _lost(self, claim: Claim, why: str) -> Ended:
        """Nothing is placed until the scheduler was looked at again."""
        self._away = self._away or "its scheduler has lost what it was given"
        return Ended(claim, How.LOST, why=why)

    def _refused(self, claim: Claim, why: str) -> Ended:
        """Nothing is placed for a while: the next would be refused too."""
        self._refusals += 1
        self._refused_until = self._monotonic() + AWAY.after(self._refusals)
        self._refusal = why
        return Ended(claim, How.REFUSED, why=why)

    def _is_fresh(self) -> bool:
        return not self._away and self._monotonic() - self._look.at < _STALE_SECONDS

    def _watch(self) -> None:
        failures, before = 0, (False, False)
        while not self._stopping.is_set():
            try:
                self._look_at(self._client or self._join())
                failures = 0
            except Exception as error:  # noqa: BLE001  the edge: whatever the library raises, it is away
                failures += 1
                self._leave()
                self._say(str(error) if isinstance(error, _NotReached) else self._why_away(error))
            if (now := (self.serves, self.is_full)) != before:
                before = now
                self._on_news()
            self._tried.set()
            self._stopping.wait(AWAY.after(failures) if failures else _LOOK_SECONDS)

    def _why_away(self, error: Exception) -> str:
        try:
            why = why_not_reached(self._config.ai)
        except ConfigError as unreadable:  # since it was last read
            return str(unreadable)
        return why or f"its scheduler does not answer ({type(error).__name__})"

    def _join(self) -> "Client":
        from distributed import Client

        configure_library()
        if why := why_not_reached(self._config.ai):
            raise _NotReached(why)
        self._client = Client(
            self._config.ai.engine_address,
            loop=self._loop.running,
            security=self._security,
            timeout=REACHED_WITHIN_SECONDS,
            set_as_default=False,
            direct_to_workers=False,
        )
        self._client.subscribe_topic(BEGUN, self._has_begun)
        return self._client

    def _has_begun(self, event: tuple[float, str]) -> None:
        _, key = event
        if key.startswith(self._own):
            self._begun.add(key)

    def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.close(timeout=1)

    def _look_at(self, client: "Client") -> None:
        if client.status != "running":
            raise ConnectionError
        own = len(self._placed)
        offered, undone = client.run_on_scheduler(look_at_scheduler, self.model)
        workers = sum(self.model in each for each in offered)
        self._look = _Look(self._monotonic(), workers, max(0, undone - own))
        self._say(self._why_none(offered) if workers == 0 else "")

    def _why_none(self, offered: Sequence[Sequence[str]]) -> str:
        if not offered:
            return "it has no worker; start `willis worker` on its hosts"
        others = sorted({name for each in offered for name in each}) or ["something else than `willis worker`"]
        return (
            f"{counted(len(offered), 'worker has', 'workers have')} {'; '.join(others)}, and this node has {self.model}: "
            "install the same there, and restart `willis worker`"
        )

    def _say(self, away: str) -> None:
        if away and away != self._away:
            log.get().warning("engine_away", reason=away)
        elif self._away and not away:
            log.get().info("engine_reached", count=self._look.workers)
        self._away = away
