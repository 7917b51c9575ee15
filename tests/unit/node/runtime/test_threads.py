"""A thread that cannot begin is not waited for."""

import threading
from contextlib import suppress

import pytest

from node.runtime import threads


class WithoutMemory(threading.Thread):
    """Ends as one does that has no memory for its first call."""

    def _bootstrap(self) -> None:
        raise MemoryError


class Late(threading.Thread):
    """Begins when it is told to, and not at once."""

    def __init__(self) -> None:
        self.may_begin, self.ended, self.has_run = threading.Event(), threading.Event(), False
        super().__init__(daemon=True)

    def _bootstrap(self) -> None:
        self.may_begin.wait(10)
        with suppress(KeyError):  # it is no longer known
            super()._bootstrap()  # type: ignore[misc]
        self.ended.set()

    def run(self) -> None:
        self.has_run = True


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_thread_without_memory_to_begin_with_is_an_error_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "LONGEST_SECONDS", 0.05)
    thread = WithoutMemory(daemon=True)
    with pytest.raises(RuntimeError, match="memory"):
        threads.start(thread)
    assert thread not in threading.enumerate()


def test_a_thread_that_begins_after_it_was_given_up_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "LONGEST_SECONDS", 0.05)
    thread = Late()
    with pytest.raises(RuntimeError, match="memory"):
        threads.start(thread)
    thread.may_begin.set()
    assert thread.ended.wait(10)
    assert not thread.has_run


def test_a_thread_that_begins_runs() -> None:
    ran = threading.Event()
    thread = threading.Thread(target=ran.set)
    threads.start(thread)
    thread.join(10)
    assert ran.is_set()
    assert thread.ident is not None
    assert not thread.is_alive()
