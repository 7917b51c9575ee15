"""A thread that cannot begin is not waited for."""

import threading

import pytest

from node.runtime import threads


class WithoutMemory(threading.Thread):
    """Ends as one does that has no memory for its first call."""

    def _bootstrap(self) -> None:
        raise MemoryError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_thread_without_memory_to_begin_with_is_an_error_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "LONGEST_SECONDS", 0.05)
    with pytest.raises(RuntimeError, match="memory"):
        threads.start(WithoutMemory(daemon=True))


def test_a_thread_that_begins_runs() -> None:
    ran = threading.Event()
    thread = threading.Thread(target=ran.set)
    threads.start(thread)
    thread.join(10)
    assert ran.is_set()
    assert thread.ident is not None
    assert not thread.is_alive()
