"""Folders flushed beside the files in them: the disk does both at once, and one flush of a folder serves all who wait."""

import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path


class FolderFlushes:
    """One thread that flushes folders for everybody; it begins with the first request."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def flush(self, folder: Path) -> Callable[[], None]:
        """The flush of `folder`, as it is now, has been asked for; what is returned waits for it and raises what went wrong.

        Raises RuntimeError where the host has no thread for the first of them.
        """
        request = _Request(folder)
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="folder-flushes", daemon=True)
                thread.start()
                self._thread = thread
        self._requests.put(request)
        return request.wait

    def _run(self) -> None:
        while True:
            requests = [self._requests.get()]
            while not self._requests.empty():
                requests.append(self._requests.get())
            for folder in {request.folder for request in requests}:
                error = _error_of_flushing(folder)
                for request in requests:
                    if request.folder == folder:
                        request.complete(error)


class _Request:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._error: Exception | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def complete(self, error: Exception | None) -> None:
        self._error = error
        self._done.release()

    def wait(self) -> None:
        self._done.acquire()
        if self._error is not None:
            raise self._error


def _error_of_flushing(folder: Path) -> Exception | None:
    try:
        flush_folder(folder)
    except Exception as error:  # noqa: BLE001  the edge: whatever it is, those who wait get it, and the thread goes on
        return error
    return None


def flush_folder(folder: Path) -> None:
    """The entries of `folder` survive power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
