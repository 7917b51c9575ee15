"""What can go wrong, and what is done about it: the map of all packages.

NodeError
├── ConfigError       the configuration cannot be used; one line for the administrator, exit status 2
├── Unavailable       a peer or the machine cannot do it now: tried again with backoff
│   └── Busy          the peer is there and says so itself: for something else it may be asked now
└── Refused           a peer will never do it: needs a person

`ai.errors`: NotAnalysable is never retried and is reported; BundleError stops the worker.
`storage.errors`: StorageFull becomes C-STORE status 0xA700, and pauses the worker; Damaged counts as an attempt of the analysis.
"""

from ai.errors import WillisAIError
from storage import messages
from storage.errors import StorageError


class NodeError(Exception):
    """The root of node's errors."""


class ConfigError(NodeError):
    """The configuration cannot be used.  The message is one line that names the key, the value and the remedy."""


class Unavailable(NodeError):
    """It cannot be done now; trying again later may help."""


class Busy(Unavailable):
    """The peer answered that it cannot do it now; of other things that says nothing."""


class Refused(NodeError):
    """It was refused for good; trying again will not help."""


def safe_message(error: BaseException) -> str:
    """What may be shown of an error, the same in log, status, worklist and on the command line: cause and remedy.

    The message of one of ours; of the system's and a database's errors what `storage.messages` says; of any other only
    its kind, because its text may hold what no log may.
    """
    if isinstance(error, NodeError | StorageError | WillisAIError):
        return str(error)
    if isinstance(error, Exception) and (message := messages.of_database(error)):
        return f"the database failed: {message}"
    if isinstance(error, OSError):
        return messages.of_system(error)
    if isinstance(error, UnicodeError):
        return messages.of_name(error)
    if isinstance(error, MemoryError):
        return "no memory left; look at what uses it (free, top)"
    return type(error).__name__
