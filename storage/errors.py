"""What can go wrong in storage.

StorageError
├── IllegalTransition   the state machine does not allow this event in this stage; nothing was changed
├── StorageFull         the disk (or a quota) refused the write; nothing half-written remains
├── Damaged             a file differs from what the database says of it
│   └── NotStored       it is neither here nor in the object store
├── ObjectsAway         the object store cannot be had, or not so; the message says why and what to do: tried again
└── DatabaseUnusable    the database cannot be opened or migrated; the message says what to do
    └── DatabaseAway    it cannot be had now and may come back by itself: tried again
        └── DatabaseLocked  a program holds SQLite's lock; its `pid`, 0 where that is not known
"""


class StorageError(Exception):
    """The root of storage's errors."""


class IllegalTransition(StorageError):
    """The state machine does not allow this event in this stage; nothing was changed."""

    def __init__(self, stage: str, event: str) -> None:
        super().__init__(f"a series that is {stage!r} cannot be {event!r}")


class StorageFull(StorageError):
    """The disk refused the write; nothing half-written remains under the instance's name."""


class Damaged(StorageError):
    """A file is missing or differs from the sha256 that the database holds for it."""


class NotStored(Damaged):
    """A file is neither in this folder nor in the object store: not yet, or no longer."""


class ObjectsAway(StorageError):
    """The object store cannot be had now, or not as it is configured; the message names cause and remedy."""


class DatabaseUnusable(StorageError):
    """The database cannot be opened or migrated; the message says what to do."""


class DatabaseAway(DatabaseUnusable):
    """The database cannot be had now (no server, no connection left, locked) and may come back by itself."""


class DatabaseLocked(DatabaseAway):
    """A program holds the right to write the SQLite database for too long; the message names it."""

    def __init__(self, message: str, pid: int = 0) -> None:
        """`pid`: of that program; 0 where it is not known."""
        super().__init__(message)
        self.pid = pid
