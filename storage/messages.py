"""What an error of the system or of a database says to an administrator: the cause and the remedy, in one line.

Pure, and without the libraries' own texts, which may hold paths or values: a cause is recognised and said in our words.
The libraries are not imported: their errors are known by their attributes.
"""

import errno
from collections.abc import Mapping

_SYSTEM = {
    errno.ENOSPC: "no space left on the disk; free some, or move [storage] directory",
    errno.EDQUOT: "the disk quota is used up; free some, or have it raised",
    errno.EFBIG: "the file would be larger than this disk or a limit (ulimit -f) allows; raise it",
    errno.EROFS: "the file system is read-only, as after an error of the disk; look at dmesg and mount it for writing",
    errno.EACCES: "permission denied; let the user that Willis runs as read and write there",
    errno.EPERM: "not permitted; let the user that Willis runs as do it",
    errno.EIO: "the disk failed (input/output error); look at dmesg and replace it",
    errno.EMFILE: "no file descriptor left for this process; raise its limit (ulimit -n)",
    errno.ENFILE: "no file descriptor left on this host; raise fs.file-max",
    errno.ENOMEM: "no memory left; look at what uses it (free, top)",
    errno.ENOENT: "no such file or folder; create it or correct the path",
    errno.ENOTDIR: "a part of the path is no folder; correct it",
    errno.EADDRINUSE: "another program holds it; find it with `ss -ltnp` and stop it, or choose another port",
    errno.EADDRNOTAVAIL: "this host has no such address; write one of its own (`ip address`), or 0.0.0.0 for all",
    errno.ECONNREFUSED: "connection refused: the host is up and nothing listens on that port; start it or correct the port",
    errno.ECONNRESET: "the other side closed the connection; look at its log",
    errno.EPIPE: "the other side closed the connection; look at its log",
    errno.EHOSTUNREACH: "no route to that host; is it up, and is the address right?",
    errno.ENETUNREACH: "no route to that network; look at this host's network (`ip route`)",
    errno.ETIMEDOUT: "no answer: the host is down, or a firewall drops what we send; try `ping` and look at the firewall",
}
_UNRESOLVABLE = "the host name cannot be resolved; correct it, or look at the name server (`getent hosts NAME`)"
_LOCKED = "another program has locked the database for too long; find it (`fuser` on the file) and end it"
_SQLITE = {
    "SQLITE_ERROR": "it holds tables that are not ours; name another database in [storage] database_url",
    "SQLITE_CANTOPEN": "the file cannot be opened; check that the folder exists and that Willis may write there",
    "SQLITE_READONLY": "the file cannot be written to; let the user that Willis runs as write to it and its folder",
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_FULL": "no space left for the database; free some where [storage] database_url is",
    "SQLITE_IOERR": "the disk failed while the database was read or written; look at dmesg and at the free space",
    "SQLITE_CORRUPT": "the file is damaged; restore the latest backup",
    "SQLITE_NOTADB": "the file is no SQLite database; correct [storage] database_url, or restore the latest backup",
}
_START_SERVER = "start the server, or correct host and port in [storage] database_url"
_PROMOTE = "start the primary, or promote a standby that [storage] database_url names too"
_NOT_READY = "the server is not ready yet: it starts, or recovers from a crash; wait a moment"
_CONNECTIONS = "the server has no connection left; raise its max_connections or end other programs"
_NOT_LET_IN = "the server does not let this user in; correct the user, what it may do, or the server's pg_hba.conf"
_UNPROVEN = "the server cannot prove who it is; correct sslrootcert or sslmode in [storage] database_url"
_OUR_KEY = "the certificate or key that we show cannot be used; correct sslcert and sslkey in [storage] database_url"
_OPTION = "an option of [storage] database_url cannot be used; correct it (`psql` with the same URL says which)"
_NO_POSTGRESQL = f"what listens there is no PostgreSQL server; {_START_SERVER}"
_NO_DATABASE = "the server has no database of that name; make it (`createdb NAME`) or correct [storage] database_url"
_AWAY_TEXTS = {
    "session is read-only": f"no server that can be had takes changes; {_PROMOTE}",
    "connection refused": f"no server listens there; {_START_SERVER}",
    "failed: no such file or directory": f"no server listens on that socket; {_START_SERVER}",
    "failed to resolve host": _UNRESOLVABLE,
    "could not translate host name": _UNRESOLVABLE,
    "timeout expired": f"the server does not answer; {_START_SERVER}, or look at the firewall",
    "timed out": f"the server does not answer; {_START_SERVER}, or look at the firewall",
    "starting up": _NOT_READY,
    "recovery mode": _NOT_READY,
    "not yet accepting": _NOT_READY,
    "shutting down": "the server is shutting down; start it again",
    "too many clients": _CONNECTIONS,
    "remaining connection slots": _CONNECTIONS,
    "closed the connection unexpectedly": "the server closed the connection, as when it crashes; look at its log",
}
"""What libpq and psycopg say before a session exists, when there is no SQLSTATE; of what may come back by itself."""
_FOR_GOOD_TEXTS = {
    "password authentication failed": "wrong user or password; correct them in [storage] database_url",
    "no password supplied": "the server wants a password; write it into [storage] database_url",
    "root certificate": _UNPROVEN,
    "server certificate": _UNPROVEN,
    "certificate verify failed": _UNPROVEN,
    "not support ssl": "the server speaks no TLS; let it, or correct sslmode in [storage] database_url",
    "authentication failed": _NOT_LET_IN,
    "client certificate": _OUR_KEY,
    "certificate file": _OUR_KEY,
    "private key": _OUR_KEY,
    " alert ": _OUR_KEY,
    "not permitted to log in": _NOT_LET_IN,
    'role "': "the server has no user of that name; make it (`createuser NAME`) or correct [storage] database_url",
    "no such database": _NO_DATABASE,
    "does not exist": _NO_DATABASE,
    "pg_hba.conf": "the server lets nobody in from here; add a line for us to its pg_hba.conf",
    "permission denied for database": _NOT_LET_IN,
    "not currently accepting": "the server lets nobody into that database; ALTER DATABASE … ALLOW_CONNECTIONS true",
    "invalid response": _NO_POSTGRESQL,
    "expected authentication request": _NO_POSTGRESQL,
    ' value: "': _OPTION,
    "bad value for": _OPTION,
    "connection option": _OPTION,
    "invalid port number": _OPTION,
    "could not match": _OPTION,
    "network address": _OPTION,
    "may not be used with": _OPTION,
    "require_auth": _OPTION,
    "channel binding": _OPTION,
    'of service "': _OPTION,
    "service file": _OPTION,
    "configuration parameter": _OPTION,
}
"""The same of what a person has to mend."""
_SQLSTATES = {
    "53100": "no space left for the database; free some where the PostgreSQL server has its data",
    "53300": _CONNECTIONS,
    "55P03": "another session holds a table for too long; find it (`SELECT * FROM pg_stat_activity`) and end it",
    "57P01": "the server ended the connection, as at a restart; it is tried again",
    "57P03": _NOT_READY,
    "28P01": "wrong user or password; correct them in [storage] database_url",
    "3D000": "the server has no database of that name; make it (`createdb NAME`) or correct [storage] database_url",
    "25006": "the server takes no changes now (read-only, a standby); name the primary in [storage] database_url",
    "42P07": "it holds tables that are not ours; name another database in [storage] database_url",
    "42501": "the user may not do this in the database; let it own the database, or GRANT it",
}
_AWAY_STATES = ("08", "25006", "53", "55P03", "57P")
_AWAY_NAMES = ("SQLITE_BUSY", "SQLITE_LOCKED")


def of_system(error: OSError) -> str:
    """Cause and remedy of an error of the operating system."""
    if type(error).__name__ in ("gaierror", "herror"):
        return _UNRESOLVABLE
    if isinstance(error, TimeoutError):
        return _SYSTEM[errno.ETIMEDOUT]
    known = _SYSTEM.get(error.errno or 0)
    return known or (error.strerror or type(error).__name__)


def of_name(error: ValueError) -> str:
    """Cause and remedy of a host name that is none: Python's socket raises UnicodeError for it."""
    return f"that is no host name ({type(error).__name__}); write a name or an address"


def of_database(error: Exception) -> str | None:
    """Cause and remedy of an error of a database's driver, as it is or as SQLAlchemy wraps it; None where it is none."""
    driver = _of_driver(error)
    if driver is None:
        return None
    if name := _sqlite_name(driver):
        return _SQLITE.get(name, f"SQLite says {name}")
    if state := getattr(driver, "sqlstate", None):
        return _SQLSTATES.get(state, f"the server answered SQLSTATE {state}")
    text = str(driver).lower()
    if known := _known(_AWAY_TEXTS, text) or _known(_FOR_GOOD_TEXTS, text):
        return known
    if _is_unknown(driver):
        return "it says something that is not known here; try `psql` with the same URL, or look at the server's log"
    return f"the database failed ({type(driver).__name__}); look at its server's log"


def is_away(error: Exception) -> bool:
    """Whether the database cannot be had now and may come back by itself: no server, no connection left, locked.

    Of several servers in a URL one that may come back is enough.  What is said before a session exists has no SQLSTATE and is
    in the server's language: what is not known here may come back, too.
    """
    driver = _of_driver(error)
    if driver is None:
        return False
    if state := getattr(driver, "sqlstate", None):
        return bool(state.startswith(_AWAY_STATES)) and state != "53100"
    if name := _sqlite_name(driver):
        return name in _AWAY_NAMES
    text = str(driver).lower()
    return bool(_known(_AWAY_TEXTS, text)) or (_is_unknown(driver) and not _known(_FOR_GOOD_TEXTS, text))


def _is_unknown(driver: Exception) -> bool:
    """Whether only its text says what is the matter with a connection to PostgreSQL."""
    return type(driver).__name__ == "OperationalError" and type(driver).__module__.startswith("psycopg")


def _known(texts: Mapping[str, str], text: str) -> str:
    """Cause and remedy by the first of these that is part of the text; "" where none is."""
    return next((cause for part, cause in texts.items() if part in text), "")


def _sqlite_name(driver: Exception) -> str:
    """The name of SQLite's result code, without what an extended code adds; "" where it is none of SQLite's."""
    return "_".join(str(getattr(driver, "sqlite_errorname", None) or "").split("_")[:2])


def _of_driver(error: Exception) -> Exception | None:
    """The error as the driver raised it; None where no database's driver did."""
    driver = getattr(error, "orig", None) or error
    names = {base.__module__.split(".")[0] for base in type(driver).__mro__}
    return driver if isinstance(driver, Exception) and names & {"sqlite3", "psycopg", "psycopg2"} else None
