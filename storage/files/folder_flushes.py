"""Folders flushed beside the files in them: the disk does both at once, and one flush of a folder serves all who wait."""

import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from storage.pending import Pending


class FolderFlushes:
    """One thread that flushes folders for everybody; it begins with the first request."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[tuple[Path | str, Pending[None]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def flush(self, folder: Path | str) -> Callable[[], None]:
        """The flush of `folder`, as it is now, has been asked for; what is returned waits for it and raises what went wrong.

        Raises RuntimeError where the host has no thread for the first of them.
        """
        done = Pending[None]()
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="folder-flushes", daemon=True)
                thread.start()
                self._thread = thread
        self._requests.put((folder, done))
        return done.outcome

    def _run(self) -> None:
        while True:
            requests = [self._requests.get()]
            while not self._requests.empty():
                requests.append(self._requests.get())
            for folder in {folder for folder, _ in requests}:
                error: Exception | None = None
                try:
                    flush_folder(folder)
                except Exception as failure:  # noqa: BLE001  the edge: those who wait get it, and the thread goes on
                    error = failure
                for _, done in (request for request in requests if request[0] == folder):
                    done.complete(error)


def flush_folder(folder: Path | str) -> None:
    """The entries of `folder` survive power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
