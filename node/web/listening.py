"""The port of the pages."""

import socket

from node.config.sections import Config
from node.errors import Unavailable
from node.net.ports import port_message


def listen(config: Config) -> socket.socket:
    """A socket at the address of the pages.  Raises Unavailable."""
    host, port = config.web.host, config.web.port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        raise Unavailable(port_message("[web]", host, port, error)) from None
