"""The ports where associations are accepted, and what is said of one that cannot be listened on."""

import errno
import socket

from node.config.sections import Node
from node.errors import ConfigError, safe_message

_BACKLOG = 1024


def ports_of(node: Node) -> dict[str, int]:
    """By the section of the configuration that names each."""
    plain = {} if node.tls is not None and node.tls.required else {"[node]": node.port}
    return plain if node.tls is None else {**plain, "[node.tls]": node.tls.port}


def require_ports(node: Node) -> None:
    """Each of its ports can be listened on now.  Raises ConfigError."""
    for section, port in ports_of(node).items():
        try:
            bound(node.host, port).close()
        except (OSError, UnicodeError) as error:
            raise ConfigError(port_message(section, node.host, port, error)) from None


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there, for IPv6 where the host is of it.  Raises OSError."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
        listening.setblocking(False)  # a connection that is gone when we accept it holds up nobody
    except OSError:
        listening.close()
        raise
    return listening


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
