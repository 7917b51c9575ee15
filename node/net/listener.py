"""Connections become associations: pynetdicom's server, with associations of `node.net.association`.

What this file knows of pynetdicom's inside is listed in `node.net.pynetdicom_guard` too.
"""

import errno
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from pynetdicom import evt
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from node.net.association import DirectAssociation, Gate
from node.net.dimse_messages import Begin
from node.runtime import log


class _Handler(RequestHandler):  # type: ignore[misc]  # pynetdicom has no types here
    """As pynetdicom's, but the association is ours and shares the supported contexts, which negotiation only reads."""

    def _create_association(self) -> DirectAssociation:
        server = self.server
        assoc = DirectAssociation(self.ae, server.begin, server.gate)
        assoc._server = server  # noqa: SLF001
        assoc.name = "AcceptorThread"
        assoc.set_socket(AssociationSocket(assoc, client_socket=self.request))
        assoc.acceptor.maximum_length = self.ae.maximum_pdu_size
        assoc.acceptor.ae_title = server.ae_title
        assoc.acceptor.address_info = self.local
        assoc.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = self.ae.implementation_version_name
        assoc.acceptor.supported_contexts = server.contexts
        assoc.requestor.address_info = self.remote
        for event, handlers in server._handlers.items():  # noqa: SLF001
            for handler in [handlers] if event.is_intervention else handlers:
                if handler[0] is not None:
                    assoc.bind(event, *handler)
        return assoc


class DirectServer(AssociationServer):  # type: ignore[misc]  # pynetdicom has no types here
    """Accepts connections; each gets an association with a thread of its own."""

    request_queue_size = 1024

    def __init__(
        self, *arguments: Any, begin: Callable[[Any], Begin], gate: Gate | None = None, **keywords: Any
    ) -> None:
        """`begin(association)` makes what `Messages` calls for each C-STORE request of it; no `gate` is an open one."""
        self.begin, self.gate = begin, gate
        super().__init__(*arguments, request_handler=_Handler, **keywords)

    @classmethod
    def start(
        cls,
        entity: Any,
        address: tuple[str, int],
        begin: Callable[[Any], Begin],
        handlers: list[Any],
        ssl_context: Any = None,
        gate: Gate | None = None,
    ) -> "DirectServer":
        """A server that accepts from now on, in a thread.  Raises OSError when the address cannot be had."""
        server: DirectServer = entity.make_server(
            address, evt_handlers=handlers, ssl_context=ssl_context, server_class=cls, begin=begin, gate=gate
        )
        entity._servers.append(server)  # noqa: SLF001
        threading.Thread(target=server.serve_forever, args=(0.05,), name="AcceptorServer", daemon=True).start()
        return server

    def _bind_defaults(self) -> None:
        for event in evt._INTERVENTION_EVENTS:  # noqa: SLF001
            self.bind(event, evt.get_default_handler(event))

    def get_request(self) -> tuple[socket.socket, Any]:
        """A connection; the TLS handshake waits for the association's own thread."""
        try:
            connection, address = self.socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(0.1)  # otherwise the waiting connection would make us spin
            raise
        if self.gate is not None and self.gate.turns_away(address[0]):
            connection.close()
            raise ConnectionRefusedError
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.ssl_context:
            connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """The association's thread closes its connection itself."""

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """An association that could not be made is closed, and nothing printed."""
        log.get().warning("association_failed", error="cannot be served")
        request.close()

    def service_actions(self) -> None:
        """No collection of all garbage every minute: it would hold up whoever is sending."""
