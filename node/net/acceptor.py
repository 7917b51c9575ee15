"""Connections become associations, each in a thread of its own."""

import errno
import select
import socket
import ssl
import threading
import time

from node.net.association import Association, Gate, Services
from node.net.negotiation import Entity
from node.net.ports import bound
from node.runtime import log
from node.runtime.threads import start

_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


class Acceptor:
    """An application entity that is called, on any number of ports."""

    def __init__(self, entity: Entity, services: Services, gate: Gate | None = None) -> None:
        """No `gate` is an open one."""
        self._entity, self._services, self.gate = entity, services, gate or Gate()
        self._listeners: list[_Listener] = []
        self._associations: set[Association] = set()

    def listen(self, host: str, port: int, context: ssl.SSLContext | None = None) -> None:
        """Connections are accepted there from now on, by TLS with a `context`.  Raises OSError when that cannot be had."""
        self._listeners.append(_Listener(self, bound(host, port), context))

    def renew(self, context: ssl.SSLContext) -> None:
        """The connections that are accepted from now on where TLS is spoken use this; those that are open go on."""
        for listener in self._listeners:
            listener.renew(context)

    def stop_listening(self) -> None:
        """No connection is accepted any longer; associations go on."""
        for listener in self._listeners:
            listener.stop()
        self._listeners = []

    @property
    def associations(self) -> list[Association]:
        """Those whose thread runs, established or not."""
        return list(self._associations)

    def serve(self, connection: socket.socket, host: str) -> None:
        """The connection is an association's, which closes it, and there is one more until then.

        Raises RuntimeError where there is no memory for its thread.
        """
        association = Association(connection, host, self._entity, self._services, self.gate, self._associations)
        self._associations.add(association)
        try:
            start(association)
        except BaseException:
            self._associations.discard(association)
            raise


class _Listener:
    """One port."""

    def __init__(self, acceptor: Acceptor, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        self._acceptor, self._listening, self._context = acceptor, listening, context
        self._stopping, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="AcceptorServer", daemon=True)
        self._thread.start()

    def renew(self, context: ssl.SSLContext) -> None:
        if self._context is not None:
            self._context = context

    def stop(self) -> None:
        self._stop.send(b"\0")
        self._thread.join()
        for each in (self._listening, self._stopping, self._stop):
            each.close()

    def _run(self) -> None:
        poll = select.poll()
        for each in (self._listening, self._stopping):
            poll.register(each, select.POLLIN)
        while all(descriptor != self._stopping.fileno() for descriptor, _ in poll.poll()):
            try:
                self._accept()
            except OSError as error:
                if error.errno in _OUT_OF_DESCRIPTORS:
                    time.sleep(0.1)  # otherwise the waiting connection would make us spin

    def _accept(self) -> None:
        connection, (host, *_) = self._listening.accept()
        try:
            if self._acceptor.gate.turns_away(host):
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:  # the handshake waits for the association's own thread
                connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            self._acceptor.serve(connection, host)
        except Exception:  # noqa: BLE001  the edge: one connection that cannot be served, and no other
            log.get().warning("association_failed", error="cannot be served")
            connection.close()
