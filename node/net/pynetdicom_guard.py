"""What Willis knows of pynetdicom's inside, and whether it is still so."""

import hashlib
import inspect
from typing import Any

import pynetdicom
from pynetdicom import acse, ae, association, dimse, dimse_messages, dul, events, fsm, transport

from node.errors import ConfigError

WRITTEN_FOR = "3.0.4"
_MODULES = {
    module.__name__.removeprefix("pynetdicom."): module
    for module in (acse, ae, association, dimse, dimse_messages, dul, events, fsm, transport)
}

RELIED_UPON = {
    "acse.ACSE._negotiate_as_acceptor": "fffd360957c42a8e",
    "acse.ACSE.is_aborted": "ad2eb3f545a9ed05",
    "acse.ACSE.is_release_requested": "894b33d21a8dec8e",
    "acse.ACSE.negotiate_association": "a6f771214fa494c1",
    "acse.ACSE.send_abort": "6707ebd82b156b4b",
    "acse.ACSE.send_accept": "c03855deabefe975",
    "acse.ACSE.send_reject": "700998293bbcb6c9",
    "acse.ACSE.send_release": "28eaf9df836ca88f",
    "ae.ApplicationEntity.active_associations": "23da190dfcca5dbd",
    "ae.ApplicationEntity.make_server": "6569298ac5cf837c",
    "association.Association.__init__": "eb07516b8009ad8f",
    "association.Association._run_reactor": "f28838c5559e462a",
    "association.Association._serve_request": "2f24c1759cdf6c8c",
    "association.Association.abort": "de1cee39dfe396b0",
    "association.Association.kill": "8f9713666a7f4cff",
    "association.Association.run_reactor": "ed8bbbe3b3d6ddae",
    "association.Association.set_socket": "235681dc751728fb",
    "dimse.DIMSEServiceProvider.send_msg": "a839cf2fb46976d9",
    "dimse_messages.DIMSEMessage.decode_msg": "f51c777e841a76be",
    "dimse_messages.DIMSEMessage.message_to_primitive": "f8f43d34e43450ef",
    "dul.DULServiceProvider.__init__": "c82dafa9438ddf70",
    "dul.DULServiceProvider._decode_pdu": "fc71dd1bf853e1ce",
    "dul.DULServiceProvider._process_recv_primitive": "4c0ebbb3e646e35e",
    "dul.DULServiceProvider._read_pdu_data": "19f2d4e38c13c835",
    "dul.DULServiceProvider._send": "a850a7919e68484e",
    "dul.DULServiceProvider.receive_pdu": "fa67339834ca998c",
    "dul.DULServiceProvider.run_reactor": "e3a10eb3a0931e48",
    "dul.DULServiceProvider.stop_dul": "28a7e0be126e7b30",
    "events.trigger": "b97f8a75e8affaa0",
    "fsm.AA_1": "8495a4665f7ad3c9",
    "fsm.AA_2": "a58069d8299198e0",
    "fsm.AA_3": "de64452e828d09da",
    "fsm.AA_4": "de72d40c80b07e3e",
    "fsm.AA_5": "4a8a4a3ac26f1f17",
    "fsm.AA_8": "06c83317f08831fd",
    "fsm.AE_5": "35e8617fcc8d3186",
    "fsm.AE_6": "385d595ed49432af",
    "fsm.AE_7": "c62284735836c78a",
    "fsm.AE_8": "9fc96fcfe2e117f5",
    "fsm.AR_2": "2cf6aeb89062e88d",
    "fsm.AR_4": "33a12cf6208e9ac3",
    "fsm.AR_5": "dc32d2343f420b32",
    "fsm.DT_1": "82e5c5d4114534fa",
    "fsm.DT_2": "9ec543394e0b49eb",
    "fsm.StateMachine.do_action": "9a883f44c7f31641",
    "fsm.TRANSITION_TABLE": "73f9bd6de4b8d8ee",
    "transport.AssociationServer.__init__": "edacb98bdfb7b974",
    "transport.AssociationServer.get_request": "925a4f3a3042f6e4",
    "transport.AssociationServer.process_request": "4fa44ac5b54b4498",
    "transport.AssociationServer.server_bind": "cf69278a05a5c777",
    "transport.AssociationServer.shutdown": "e8e2c3a41009886d",
    "transport.AssociationSocket.__init__": "1f0325fdef2cc353",
    "transport.AssociationSocket._shutdown_socket": "e2b2628faa81a578",
    "transport.AssociationSocket.close": "c726c8db53813d55",
    "transport.AssociationSocket.send": "1ea8158c0b51faca",
    "transport.RequestHandler._create_association": "05c8d12b79863cdb",
    "transport.RequestHandler.handle": "034823fb4df3a874",
}
"""Where (module, then attributes) → the digest of its source: all that `net.association` and `net.listener` call, replace or imitate."""


def check_pynetdicom(relied_upon: dict[str, str] = RELIED_UPON) -> None:
    """pynetdicom is inside what `net.association` and `net.listener` were written for.  Raises ConfigError, naming what differs."""
    differing = [name for name, digest in relied_upon.items() if source_digest(name) != digest]
    if differing:
        raise ConfigError(
            f"pynetdicom {pynetdicom.__version__} differs inside ({', '.join(sorted(differing))}) from the one that "
            f"node/transport.py was written for; install pynetdicom=={WRITTEN_FOR}, as constraints.txt says"
        )


def source_digest(name: str) -> str:
    """The beginning of the sha256 of a function's source, or of what a table says; "" when it is not there."""
    module, *attributes = name.split(".")
    thing: Any = _MODULES[module]
    try:
        for attribute in attributes:
            thing = getattr(thing, attribute)
        if isinstance(thing, property):
            thing = thing.fget
        text = inspect.getsource(thing) if callable(thing) else repr(sorted(thing.items()))
    except (AttributeError, OSError, TypeError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
