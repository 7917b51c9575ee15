"""What docs/conformance.md states in numbers and names is what the node says on the wire and writes into its objects."""

import re
import ssl
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.datadict import dictionary_description
from pydicom.uid import UID, AllTransferSyntaxes
from pynetdicom import AE, build_context, presentation
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from ai.bundle import read_manifest
from ai.manifest import DEFAULT_BUNDLE
from ai.unet import OUTPUT_STRIDE
from node.config import sections
from node.dicom.conformance import IMAGE_CLASSES, OTHER_SYNTAXES, STORAGE_CLASSES, TRANSFER_SYNTAXES
from node.dicom.query import KEYS, PRIVATE_KEYS
from node.net import association
from node.net.tls import client_context, server_context
from node.scp import commitment_scp, query_scp
from node.scu import query_scu, wado
from node.workflow import commitments, retrieval
from storage.conditions import Level
from tests.support.certificates import Certificates
from tests.support.reports import encoded
from tests.support.site import SiteFactory, peers

ROOT = Path(__file__).resolve().parents[2]
STATEMENT = ROOT / "docs" / "conformance.md"


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


def other_classes() -> list[str]:
    """The SOP classes of docs/storage-classes.md."""
    text = (ROOT / "docs" / "storage-classes.md").read_text("utf-8")
    return re.findall(r"^\| .+ \| ([\d.]+) \|$", text, re.MULTILINE)


def test_the_statement_names_what_is_accepted() -> None:
    assert stated_classes() == ["1.2.840.10008.1.1", *IMAGE_CLASSES]
    assert [*stated_classes()[1:], *other_classes()] == list(STORAGE_CLASSES)
    assert stated_syntaxes() == set(TRANSFER_SYNTAXES)


def test_every_stated_class_is_accepted_in_every_stated_syntax_and_in_no_other(site: SiteFactory) -> None:
    made = site()
    proposed = sorted({*AllTransferSyntaxes, *OTHER_SYNTAXES})
    for sop_class in (*IMAGE_CLASSES, *other_classes()[::40]):
        ae = AE("CT1")
        ae.requested_contexts = [build_context(sop_class, syntax) for syntax in proposed]
        assoc = ae.associate("127.0.0.1", made.config.node.port)
        stated = TRANSFER_SYNTAXES if sop_class in IMAGE_CLASSES else OTHER_SYNTAXES
        assert {cx.transfer_syntax[0] for cx in assoc.accepted_contexts} == set(stated)
        assoc.release()


PRIVATE = "1.3.12.2.1107.5.9.1"


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({}, set(STORAGE_CLASSES)),
        ({"storage_classes": "images"}, set(IMAGE_CLASSES)),
        ({"storage_classes": "images", "private_storage_classes": [PRIVATE]}, {*IMAGE_CLASSES, PRIVATE}),
    ],
)
def test_no_other_sop_class_is_accepted(site: SiteFactory, settings: dict[str, object], more: set[str]) -> None:
    """Of all that the Standard has, retrieval, worklists and procedure steps among them."""
    known = {
        str(context.abstract_syntax)
        for name in dir(presentation)
        if name.endswith("PresentationContexts")
        for context in getattr(presentation, name)
    }
    known.add(PRIVATE)
    stated = {"1.2.840.10008.1.1"} | more
    for title in ("Storage commitment as SCU", "Query as SCP"):
        stated |= set(re.findall(r"\((1\.2\.840\.[\d.]+)\)", section(title))[:1])
    made, proposed, accepted = site(peers=peers(1), node=settings), sorted(known | stated), set()
    for at in range(0, len(proposed), 128):
        ae = AE("PACS")
        ae.requested_contexts = [build_context(uid) for uid in proposed[at : at + 128]]
        assoc = ae.associate("127.0.0.1", made.config.node.port)
        accepted |= {str(cx.abstract_syntax) for cx in assoc.accepted_contexts}
        if assoc.is_established:
            assoc.release()
    assert accepted == stated


def test_our_order_of_the_syntaxes_is_the_stated_one() -> None:
    text = section("Storage and Verification as SCP").split("in this order is taken:")[1].split("(`tests")[0]
    stated = [name.lower() for name in re.split(r",\s+|\s+and\s+", " ".join(text.split()))]
    ours = []
    for syntax in TRANSFER_SYNTAXES:
        name = UID(syntax).name.replace("High-Throughput JPEG 2000", "HTJ2K").lower()
        ours.append([each for each in stated if each in name][-1])  # "deflated" says more than "explicit"
    assert list(dict.fromkeys(ours)) == stated
    assert ours == sorted(ours, key=stated.index)


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


def rows_of(title: str, heading: str) -> list[list[str]]:
    """The cells of the table of that section whose first heading is this."""
    [table] = re.findall(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", section(title), re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_keys_of_a_query_are_those_of_the_statement() -> None:
    below = {Level.SERIES, Level.IMAGE}
    levels = {"all": set(Level), "STUDY": {Level.STUDY}, "SERIES, IMAGE": below, "IMAGE": {Level.IMAGE}}
    stated = {
        name: (levels[level], is_matched)
        for level, *cells in rows_of("Query as SCP", "level")
        for is_matched, cell in zip((True, False), cells, strict=True)
        for name in cell.removesuffix(", and the private ones below").split(", ")
        if name
    }
    ours = {dictionary_description(tag): (set(key.levels), key.is_matched) for tag, key in KEYS.items()}
    assert stated == ours


def test_the_private_attributes_are_those_of_the_statement_and_of_dcmtks_dictionary() -> None:
    ours = {number: (key.vr, key.is_matched) for number, key in PRIVATE_KEYS.items()}
    stated = {
        int(what[8:10], 16): (vr, what.endswith(", matched"))
        for what, vr, _ in rows_of("Query as SCP", "private attribute, creator `WILLIS`")
    }
    assert stated == ours
    dictionary = re.findall(
        r'^\(0099,"WILLIS",(\w\w)\)\t(\w\w)\t', (ROOT / "docs" / "willis.dic").read_text(), re.MULTILINE
    )
    assert {int(number, 16): vr for number, vr in dictionary} == {number: vr for number, (vr, _) in ours.items()}


def test_a_query_has_no_extended_negotiation(site: SiteFactory) -> None:
    model, item = StudyRootQueryRetrieveInformationModelFind, SOPClassExtendedNegotiation()
    item.sop_class_uid, item.service_class_application_information = model, b"\x01\x01\x01"
    ae = AE("PACS")
    ae.add_requested_context(model)
    assoc = ae.associate("127.0.0.1", site(peers=peers(1)).config.node.port, ext_neg=[item])
    assert assoc.is_established
    assert assoc.acceptor.sop_class_extended == {}
    assoc.release()


DELIVERY = sections.DeliverySettings()


@pytest.mark.parametrize(
    ("title", "said", "value"),
    [
        ("Storage as SCU", r"tried again: (\S+) s doubling", DELIVERY.first_retry_seconds),
        ("Storage as SCU", r"doubling to (\S+) min", DELIVERY.maximum_retry_seconds / 60),
        ("Storage commitment as SCU", r"stays on it for (\S+) s\)", commitments.SAME_ASSOCIATION_SECONDS),
        ("Storage commitment as SCP", r"open and quiet for\s(\S+) s", association.QUIET_SECONDS),
        ("Storage commitment as SCP", r"else after (\S+) s on a new one", commitment_scp.GRACE_SECONDS),
        ("TLS", r"\((\d+) by default", sections.Tls.model_fields["port"].default),
        ("Query as SCP", r"more than (\S+) match", query_scp.MOST_ANSWERS),
        ("Retrieve as SCU", r"at most (\d+) UIDs", query_scu.UIDS_IN_A_REQUEST),
        ("Retrieve as SCU", r"after (\S+) s, doubling", retrieval.PAUSES.first_seconds),
        ("DICOMweb", r"more than (\d+) are missing", wado.MOST_ONE_BY_ONE),
        ("Segmentation", r"lesion map \((\S+) mm in the bundle", OUTPUT_STRIDE * read_manifest(DEFAULT_BUNDLE).preprocessing.spacing_mm),
    ],
)  # fmt: skip
def test_the_numbers_of_the_statement_are_those_of_the_node(title: str, said: str, value: float) -> None:
    found = re.search(said, " ".join(section(title).split()))
    assert found is not None
    assert float(found[1].replace(",", "")) == pytest.approx(value)


def test_every_test_that_the_statement_names_is_there() -> None:
    named = set(re.findall(r"`((?:tests/\w+/)?test_\w+\.py)`", STATEMENT.read_text("utf-8")))
    assert len(named) > 15
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
    assert {name for name in named if not any(path == name or path.endswith(f"/{name}") for path in there)} == set()
