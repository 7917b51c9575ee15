"""What is said of a port that cannot be listened on."""

import errno

from node.errors import safe_message


def port_message(section: str, host: str, port: int, error: OSError | UnicodeError) -> str:
    """Why nobody can listen there, and what to do.  `section`: of the configuration, which names the port."""
    if port < 1024 and isinstance(error, PermissionError):
        return (
            f"{section} port = {port}: ports below 1024 are for root; choose one above, or let Willis have it "
            "(CAP_NET_BIND_SERVICE)"
        )
    key = f"{section.replace('.tls', '')} host = {host!r}"
    if getattr(error, "errno", None) == errno.EADDRINUSE:
        key = f"{section} port = {port}"
    return f"{key} ({host}:{port}): {safe_message(error)}"
