"""What an error of the system or of a database says to an administrator: the cause and the remedy, in one line.

Pure, and without the libraries' own texts, which may hold paths or values: a cause is recognised and said in our words.
The libraries are not imported: their errors are known by their attributes.
"""

import errno

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
_RECOVERS = "the server recovers from a crash; wait a moment"
_POSTGRESQL = (  # what libpq says before a session exists, when there is no SQLSTATE
    ("session is read-only", f"no server that can be had takes changes; {_PROMOTE}", True),
    ("password authentication failed", "wrong user or password; correct them in [storage] database_url", False),
    (
        "certificate",
        "the server cannot prove who it is; correct sslrootcert or sslmode in [storage] database_url",
        False,
    ),
    ("not support ssl", "the server speaks no TLS; let it, or correct sslmode in [storage] database_url", False),
    ("invalid response", f"what listens there is no PostgreSQL server; {_START_SERVER}", False),
    ("invalid ", "an option of [storage] database_url has a value that libpq does not know; correct it", False),
    ("no password supplied", "the server wants a password; write it into [storage] database_url", False),
    ("does not exist", "", False),
    ("no pg_hba.conf entry", "the server lets nobody in from here; add a line for us to its pg_hba.conf", False),
    ("authentication failed", "the server does not let this user in; correct the user or its pg_hba.conf", False),
    ("connection refused", f"no server listens there; {_START_SERVER}", True),
    ("no such file or directory", f"no server listens on that socket; {_START_SERVER}", True),
    ("failed to resolve host", _UNRESOLVABLE, True),
    ("could not translate host name", _UNRESOLVABLE, True),
    ("timeout", f"the server does not answer; {_START_SERVER}, or look at the firewall", True),
    ("starting up", "the server is still starting; wait a moment", True),
    ("recovery mode", _RECOVERS, True),
    ("not yet accepting", _RECOVERS, True),
    ("closed the connection", "the server closed the connection, as when it crashes; look at its log", True),
    ("shutting down", "the server is shutting down; start it again", True),
    ("too many clients", "the server has no connection left; raise its max_connections or end other programs", True),
    ("remaining connection slots", "the server has no connection left; raise its max_connections", True),
)
_SQLSTATES = {
    "53100": "no space left for the database; free some where the PostgreSQL server has its data",
    "53300": "the server has no connection left; raise its max_connections or end other programs",
    "55P03": "another session holds a table for too long; find it (`SELECT * FROM pg_stat_activity`) and end it",
    "57P01": "the server ended the connection, as at a restart; it is tried again",
    "57P03": "the server is still starting; wait a moment",
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
    found = _known_text(driver)
    return found[0] if found else f"the database failed ({type(driver).__name__}); look at its server's log"


def is_away(error: Exception) -> bool:
    """Whether the database cannot be had now and may come back by itself: no server, no connection left, locked.

    So may whatever a server says before a session exists that is not known: it says it in its own language, and has no
    SQLSTATE then.
    """
    driver = _of_driver(error)
    if driver is None:
        return False
    if state := getattr(driver, "sqlstate", None):
        return bool(state.startswith(_AWAY_STATES)) and state != "53100"
    if name := _sqlite_name(driver):
        return name in _AWAY_NAMES
    found = _known_text(driver)
    return found[1] if found else type(driver).__name__ == "OperationalError"


def _sqlite_name(driver: Exception) -> str:
    """The name of SQLite's result code, without what an extended code adds; "" where it is none of SQLite's."""
    return "_".join(str(getattr(driver, "sqlite_errorname", None) or "").split("_")[:2])


def _known_text(driver: Exception) -> tuple[str, bool] | None:
    text = str(driver).lower()
    for part, cause, is_temporary in _POSTGRESQL:
        if part in text:
            if part != "does not exist":
                return cause, is_temporary
            what = "user" if "role " in text else "database"
            make = "createuser" if what == "user" else "createdb"
            return (
                f"the server has no {what} of that name; make it (`{make} NAME`) or correct [storage] database_url",
                False,
            )
    return None


def _of_driver(error: Exception) -> Exception | None:
    """The error as the driver raised it; None where no database's driver did."""
    driver = getattr(error, "orig", None) or error
    names = {base.__module__.split(".")[0] for base in type(driver).__mro__}
    return driver if isinstance(driver, Exception) and names & {"sqlite3", "psycopg", "psycopg2"} else None
