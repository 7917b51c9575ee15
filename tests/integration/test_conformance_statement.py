"""What docs/conformance.md states in numbers and names is what the node says on the wire and writes into its objects."""

import re
import ssl
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, build_context

from node.receiver import STORAGE_CLASSES, TRANSFER_SYNTAXES
from node.tls import client_context, server_context
from tests.certificates import Certificates
from tests.reports import encoded
from tests.site import SiteFactory

STATEMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"


def section(title: str) -> str:
    """The text below a heading that begins so."""
    text = STATEMENT.read_text("utf-8")
    found = re.search(rf"^## {re.escape(title)}.*?$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def stated_classes() -> list[str]:
    """The SOP classes of the table of Storage and Verification as SCP."""
    table = section("Storage and Verification as SCP").split("Transfer syntaxes")[0]
    uids = re.findall(r"\| (1\.2\.840\.[\d.]+)( – \.(\d))? \|", table)
    stated = []
    for uid, _, last in uids:
        stem, _, first = uid.rpartition(".")
        stated += [f"{stem}.{number}" for number in range(int(first), int(last or first) + 1)]
    return stated


def stated_syntaxes() -> set[str]:
    """The transfer syntaxes named below that table."""
    text = section("Storage and Verification as SCP").split("accepted for storage:")[1].split("RLE.")[0]
    compressed = {f"1.2.840.10008.1.2.4.{last}" for last in re.findall(r"\.(\d+)", text)} | {"1.2.840.10008.1.2.4.202"}
    return compressed | {f"1.2.840.10008.1.2{last}" for last in ("", ".1", ".1.99", ".2", ".5")}


def test_the_statement_names_what_is_accepted() -> None:
    assert stated_classes() == ["1.2.840.10008.1.1", *STORAGE_CLASSES]
    assert stated_syntaxes() == set(TRANSFER_SYNTAXES)


def test_every_stated_class_is_accepted_in_every_stated_syntax_and_in_no_other(site: SiteFactory) -> None:
    made = site()
    for sop_class in STORAGE_CLASSES:
        ae = AE("CT1")
        ae.requested_contexts = [build_context(sop_class, syntax) for syntax in AllTransferSyntaxes]
        assoc = ae.associate("127.0.0.1", made.config.node.port)
        assert {cx.transfer_syntax[0] for cx in assoc.accepted_contexts} == set(TRANSFER_SYNTAXES)
        assoc.release()


@pytest.mark.parametrize("left_out", [0, 1, 4, 13])
def test_of_the_proposed_syntaxes_the_first_in_our_order_is_taken(site: SiteFactory, left_out: int) -> None:
    ae = AE("CT1")
    ae.add_requested_context(STORAGE_CLASSES[0], list(TRANSFER_SYNTAXES[left_out:][::-1]))
    assoc = ae.associate("127.0.0.1", site().config.node.port)
    assert [cx.transfer_syntax for cx in assoc.accepted_contexts] == [[TRANSFER_SYNTAXES[left_out]]]
    assoc.release()


def test_the_node_and_every_object_bear_the_stated_implementation_and_pdu_length(site: SiteFactory) -> None:
    text = STATEMENT.read_text("utf-8")
    stated = re.search(r"Implementation class UID (\S+), version name (\S+)\.\n", text)
    announced = re.search(r"`maximum_pdu_bytes`, ([\d,]+) by default", text)
    assert stated is not None and announced is not None
    ae = AE("CT1")
    ae.add_requested_context("1.2.840.10008.1.1")
    assoc = ae.associate("127.0.0.1", site().config.node.port)
    assert assoc.acceptor.implementation_class_uid == stated[1]
    assert assoc.acceptor.implementation_version_name == stated[2]
    assert assoc.acceptor.maximum_length == int(announced[1].replace(",", ""))
    assert assoc.send_c_echo().Status == 0x0000
    assoc.release()
    meta = dcmread(BytesIO(encoded())).file_meta
    assert (meta.ImplementationClassUID, meta.ImplementationVersionName) == (stated[1], stated[2])


def test_cipher_suites_are_those_of_the_statement_without_compression_or_renegotiation(
    certificates: Certificates,
) -> None:
    for context in (server_context(certificates.of()), client_context(certificates.of())):
        suites = {cipher["name"] for cipher in context.get_ciphers()}
        assert suites
        for name in suites:
            assert name.startswith(("TLS_AES_", "TLS_CHACHA20_", "ECDHE-", "DHE-"))
            assert "GCM" in name or "CHACHA20_POLY1305" in name.replace("-", "_")
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_COMPRESSION and context.options & ssl.OP_NO_RENEGOTIATION
