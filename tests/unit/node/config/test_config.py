import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from node.config.loading import load
from node.config.notifications import Target
from node.config.peer import Peer
from node.config.sections import Config, Tls
from node.config.sign_in import Ldap, Oidc
from node.config.types import Region
from node.errors import ConfigError
from tests.support.config_files import SHIPPED, complaint, loaded, plain

PACS = '[peers.PACS]\nae_title = "PACS"\nhost = "10.0.0.7"\nport = 104\n'


def test_the_shipped_file_holds_every_key_with_its_default_and_nothing_else() -> None:
    content = SHIPPED.read_text("utf-8")
    shipped = tomllib.loads(content)
    for name, section in shipped.items():
        assert name in Config.model_fields, name
        if name == "peers":
            continue
        defaults = getattr(Config(), name)
        for key, value in section.items():
            assert value == plain(getattr(defaults, key)), f"[{name}] {key}"
        absent = set(type(defaults).model_fields) - set(section)
        assert absent == {"ai": {"bundle", "shadow", "engine_tls"}, "node": {"tls"}, "web": {"oidc", "ldap"}}.get(
            name, set()
        ), f"[{name}]"
    assert set(shipped) | {"notifications"} == set(Config.model_fields)
    assert [key for key in Target.model_fields if f"# {key} = " not in content] == []
    for key in ("bundle", "shadow", *Tls.model_fields, *Oidc.model_fields, *Ldap.model_fields):
        assert re.search(rf"^# {key} = ", content, re.MULTILINE), (
            "a key whose default cannot be written is commented out"
        )


def test_the_shipped_peer_shows_every_key_of_a_peer_with_its_default() -> None:
    [peer] = tomllib.loads(SHIPPED.read_text("utf-8"))["peers"].values()
    assert set(peer) == set(Peer.model_fields)
    for key, field in Peer.model_fields.items():
        if not field.is_required():
            assert peer[key] == (list(field.default) if isinstance(field.default, tuple) else field.default), key


def test_the_shipped_file_is_valid_and_comments_every_key() -> None:
    load(SHIPPED, {})
    for line in SHIPPED.read_text("utf-8").splitlines():
        if re.match(r"[a-z_]+ = ", line):
            assert "  # " in line, line


def test_without_a_file_the_defaults_hold() -> None:
    assert load(None, {}) == Config()


def test_a_key_that_is_left_out_has_its_default(tmp_path: Path) -> None:
    config = loaded(tmp_path, "[node]\nport = 104\n")
    assert (config.node.port, config.node.ae_title, config.completion.quiet_seconds) == (104, "WILLIS", 20)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[node]\nprot = 1", "unknown key node.prot; did you mean port?"),
        ("[compeltion]\nquiet_seconds = 1", "unknown key compeltion; did you mean completion?"),
        ("[completion]\nquiet_second = 1", "unknown key completion.quiet_second; did you mean quiet_seconds?"),
        ("[completion]\nxyzzy = 1", "unknown key completion.xyzzy"),
        ("xyzzy = 1", "unknown key xyzzy"),
        (PACS + "hots = 1", "unknown key peers.PACS.hots; did you mean host?"),
        ('[peers.PACS]\nae_title = "PACS"\nport = 104', "peers.PACS.host is missing"),
    ],
)
def test_an_unknown_or_missing_key_is_named_with_the_nearest(tmp_path: Path, content: str, said: str) -> None:
    assert complaint(tmp_path, content) == f"config.toml: {said}"


@pytest.mark.parametrize(
    ("content", "key", "value"),
    [
        ('[completion]\nquiet_seconds = "20s"', "completion.quiet_seconds", "'20s'"),
        ("[completion]\nquiet_seconds = 0", "completion.quiet_seconds", "0"),
        ("[completion]\nquiet_seconds = nan", "completion.quiet_seconds", "nan"),
        ("[completion]\nquiet_seconds = 20000000", "completion.quiet_seconds", "20000000"),
        ("[completion]\ncoverage_margin_mm = -1", "completion.coverage_margin_mm", "-1"),
        ("[node]\nport = 0", "node.port", "0"),
        ("[node]\nport = 65536", "node.port", "65536"),
        ('[node]\nport = "eleven"', "node.port", "'eleven'"),
        ("[node]\nport = 104.5", "node.port", "104.5"),
        ("[node]\nstop_seconds = 11", "node.stop_seconds", "11"),
        ('[node]\nae_title = ""', "node.ae_title", "''"),
        ('[node]\nae_title = "A_TITLE_THAT_IS_TOO_LONG"', "node.ae_title", "'A_TITLE_THAT_IS_TOO_LONG'"),
        ('[node]\nae_title = "BACK\\\\SLASH"', "node.ae_title", r"'BACK\\SLASH'"),
        ('[node]\nallowed_calling_ae = ["GOOD", "É"]', "node.allowed_calling_ae.1", "'É'"),
        ("[node]\nallowed_calling_ae = 5", "node.allowed_calling_ae", "5"),
        ("[eligibility]\nminimum_slices = 1", "eligibility.minimum_slices", "1"),
        ("[eligibility]\nmaximum_spacing_mm = 0", "eligibility.maximum_spacing_mm", "0"),
        ('[eligibility]\nrequire_contrast = "perhaps"', "eligibility.require_contrast", "'perhaps'"),
        ('[report]\ntimezone = "Mars/Olympus"', "report.timezone", "'Mars/Olympus'"),
        ('[ai]\ndevice = "gpu"', "ai.device", "'gpu'"),
        ('[ai]\nstat_calling_ae = ["A_TITLE_THAT_IS_TOO_LONG"]', "ai.stat_calling_ae.0", "'A_TITLE_THAT_IS_TOO_LONG'"),
        ("[ai]\nattempts = 0", "ai.attempts", "0"),
        ('[report]\nnot_analysed = "sometimes"', "report.not_analysed", "'sometimes'"),
        ("[delivery]\ngive_up_hours = 1", "delivery.give_up_hours", "1"),
        ('[log]\nlevel = "loud"', "log.level", "'loud'"),
        ("node = 5", "node", "5"),
        ("peers = 5", "peers", "5"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(tmp_path: Path, content: str, key: str, value: str) -> None:
    said = complaint(tmp_path, content)
    assert said.startswith(f"config.toml: {key} = {value}: "), said
    assert len(said) > len(f"config.toml: {key} = {value}: ")


@pytest.mark.parametrize("key", ["excluded_descriptions", "sharp_kernels"])
def test_a_regular_expression_that_is_none_is_named(tmp_path: Path, key: str) -> None:
    said = complaint(tmp_path, f"[eligibility]\n{key} = ['good', '(']")
    assert f"eligibility.{key}.1 = '('" in said
    assert "regular expression" in said


@pytest.mark.parametrize(
    "content", ['[delivery]\ndefault_destination = "ARCHIV"\n' + PACS, PACS + 'destination = "ARCHIV"\n']
)
def test_a_destination_that_is_no_peer_is_named(tmp_path: Path, content: str) -> None:
    said = complaint(tmp_path, content)
    assert "destination = 'ARCHIV' is not a configured peer; peers are: PACS" in said


def test_without_peers_no_destination_can_be_named(tmp_path: Path) -> None:
    assert "peers are: none" in complaint(tmp_path, '[delivery]\ndefault_destination = "PACS"')


TLS = '[node.tls]\ncertificate = "c"\nkey = "k"\nca = "a"\n'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[node]\nport = 2112\n[web]\nport = 2112", "[web] port = 2112 is that of [node] too"),
        ('[node]\nport = 2112\n[web]\nhost = "localhost"\nport = 2112', "[web] port = 2112 is that of [node] too"),
        (f"{TLS}port = 11112", "[node.tls] port = 11112 is that of [node] too"),
        (f'{TLS}port = 2112\n[web]\nport = 2112\nhost = "0.0.0.0"', "[web] port = 2112 is that of [node.tls] too"),
    ],
)
def test_two_listeners_on_one_port_are_named(tmp_path: Path, content: str, said: str) -> None:
    assert said in complaint(tmp_path, content)


def test_a_port_that_only_one_listens_on_may_be_named_twice(tmp_path: Path) -> None:
    loaded(tmp_path, "[node]\nport = 2112\n[web]\nenabled = false\nport = 2112")
    loaded(tmp_path, f"{TLS}port = 11112\nrequired = true")
    loaded(tmp_path, '[node]\nhost = "10.0.0.1"\nport = 2112\n[web]\nport = 2112')
    loaded(tmp_path, '[node]\nhost = "0.0.0.0"\nport = 2112\n[web]\nhost = "::1"\nport = 2112')


def test_a_fingerprint_without_tls_on_which_it_could_be_seen_is_named(tmp_path: Path) -> None:
    fingerprint = f'tls_sha256 = "{"ab" * 32}"\n'
    said = complaint(tmp_path, PACS + fingerprint)
    assert "[peers.PACS] tls_sha256 needs [node.tls]: without TLS no certificate is seen" in said
    loaded(tmp_path, f"{TLS}require_peer_certificate = false\n{PACS}{fingerprint}tls = true")
    loaded(tmp_path, f'[peers.PACS]\nae_title = "PACS"\nurl = "https://pacs/dicom-web"\n{fingerprint}')


@pytest.mark.parametrize("link", ["https://x/{study_instance_uid", "https://x/}", "https://x/{patient_id}/{"])
def test_a_link_with_a_brace_that_stands_alone_is_named(tmp_path: Path, link: str) -> None:
    assert "a brace stands alone" in complaint(tmp_path, f'[web.links]\nPACS = "{link}"')


def test_a_target_whose_events_are_no_list_is_named(tmp_path: Path) -> None:
    content = '[[notifications]]\nname = "a"\nkind = "hl7"\nurl = "mllp://h:1"\nevents = 5'
    assert "notifications.0.events" in complaint(tmp_path, content)


def test_a_byte_order_mark_before_the_file_is_passed_over(tmp_path: Path) -> None:
    assert loaded(tmp_path, "\ufeff[node]\nport = 104\n").node.port == 104


@pytest.mark.parametrize("content", ["[node\n", "port == 1", "[node]\nport = 1\nport = 2"])
def test_what_is_not_toml_is_said(tmp_path: Path, content: str) -> None:
    assert complaint(tmp_path, content).startswith("config.toml: not TOML: ")


def test_a_file_in_another_encoding_is_said(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes('[node]\nhost = "é"'.encode("latin-1"))
    with pytest.raises(ConfigError, match="not TOML"):
        load(path, {})


def test_a_missing_file_is_said_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file or directory; name the file with --config"):
        load(tmp_path / "nowhere.toml", {})


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path, {})


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "[node]\nport = 104\n" + PACS,
        WILLIS_NODE__PORT="105",
        WILLIS_COMPLETION__QUIET_SECONDS="7.5",
        WILLIS_ELIGIBILITY__REQUIRE_CONTRAST="false",
        WILLIS_NODE__ALLOWED_CALLING_AE='["A", "B"]',
        WILLIS_STORAGE__DIRECTORY="/srv/willis",
        WILLIS_STORAGE__DATABASE_URL="postgresql+psycopg://willis@localhost/willis",
        WILLIS_AI__DEVICE="cuda:1",
        WILLIS_PEERS__PACS__HOST="10.0.0.8",
        WILLIS_PEERS__PACS__ANSWERS_QUERIES="true",
    )
    assert (config.node.port, config.completion.quiet_seconds) == (105, 7.5)
    assert config.eligibility.require_contrast is False
    assert config.node.allowed_calling_ae == ("A", "B")
    assert config.storage.directory == Path("/srv/willis")
    assert config.storage.url == "postgresql+psycopg://willis@localhost/willis"
    assert config.ai.device == "cuda:1"
    assert config.peers["PACS"] == Peer(ae_title="PACS", host="10.0.0.8", port=104, answers_queries=True)


def test_the_environment_can_add_a_peer() -> None:
    environment = {
        "WILLIS_PEERS__ARCHIVE__AE_TITLE": "ARC",
        "WILLIS_PEERS__ARCHIVE__HOST": "h",
        "WILLIS_PEERS__ARCHIVE__PORT": "1",
    }
    assert load(None, environment).peers == {"archive": Peer(ae_title="ARC", host="h", port=1)}


def test_text_that_looks_like_a_number_can_be_quoted() -> None:
    assert load(None, {"WILLIS_NODE__AE_TITLE": '"1234"'}).node.ae_title == "1234"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WILLIS_NODE__PROT", "1", "unknown key node.prot; did you mean port?"),
        ("WILLIS_NODE__PORT", "many", "node.port = 'many'"),
        ("WILLIS_NODE__PORT__X", "1", "WILLIS_NODE__PORT__X: 'port' is not a section"),
    ],
)
def test_the_environment_is_checked_like_the_file(tmp_path: Path, name: str, value: str, said: str) -> None:
    assert said in complaint(tmp_path, "[node]\nport = 104", **{name: value})


def test_other_variables_are_no_business_of_ours() -> None:
    assert load(None, {"WILLIS_CONFIG": "/x", "PATH": "/bin", "OTHER_NODE__PORT": "1"}) == Config()


def test_nobody_configured_means_that_everybody_may_send() -> None:
    assert Config().allowed_calling_ae == ()


def test_peers_and_the_listed_may_send(tmp_path: Path) -> None:
    config = loaded(tmp_path, '[node]\nallowed_calling_ae = ["CT1", "PACS"]\n' + PACS)
    assert config.allowed_calling_ae == ("PACS", "CT1")


WEB = '[peers.WEB]\nae_title = "WEB"\nurl = "https://pacs.example/dicom-web/"\n'


def test_a_peer_with_a_url_has_its_host_and_port(tmp_path: Path) -> None:
    peers = loaded(
        tmp_path,
        WEB + PACS.replace("PACS", "OTHER").replace("host", "#").replace("port = 104", 'url = "http://[::1]:8042"'),
    ).peers
    assert (peers["WEB"].url, peers["WEB"].host, peers["WEB"].port) == (
        "https://pacs.example/dicom-web",
        "pacs.example",
        443,
    )
    assert (peers["OTHER"].host, peers["OTHER"].port) == ("::1", 8042)
    shouted = loaded(tmp_path, WEB.replace("https:", "HTTPS:")).peers["WEB"]
    assert (shouted.url, shouted.port) == ("https://pacs.example/dicom-web", 443)  # what looks for "https:" finds it


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("port = 104", "url takes the place of host and port: leave those out"),
        (
            "storage_commitment = true",
            "storage_commitment needs host and port; at a url, what the store answers is the end",
        ),
        ('retrieve = "move"', "retrieve = 'wado' goes with url, 'move' and 'get' go with host and port"),
        ('username = "willis"', "username and password_file go together"),
        ('password_file = "/p"', "username and password_file go together"),
        ('username = "willis"\npassword_file = "/p"\ntoken_file = "/t"', "password_file or token_file, not both"),
    ],
)
def test_keys_that_do_not_go_with_a_url_are_named(tmp_path: Path, keys: str, said: str) -> None:
    assert complaint(tmp_path, WEB + keys) == f"config.toml: [peers.WEB] {said}"


@pytest.mark.parametrize(
    "url", ["pacs.example", "ftp://pacs.example", "https://", "https://u:secret@pacs.example", "https://p/?key=secret", "http://p:x/"],
)  # fmt: skip
def test_a_url_that_is_none_or_holds_a_secret_is_not_repeated(tmp_path: Path, url: str) -> None:
    said = complaint(tmp_path, WEB.replace("https://pacs.example/dicom-web/", url))
    assert said.startswith(
        "config.toml: [peers.WEB] url is that of a DICOMweb service: http or https://HOST[:PORT]/PATH"
    )
    assert "secret" not in said


def test_tls_is_not_promised_at_a_url_without_it(tmp_path: Path) -> None:
    said = complaint(tmp_path, WEB.replace("https:", "http:") + "tls = true")
    assert said.startswith("config.toml: [peers.WEB] tls = true goes with an https url")


def test_credentials_and_wado_need_a_url(tmp_path: Path) -> None:
    assert complaint(tmp_path, PACS + 'token_file = "/t"').endswith("username, password_file and token_file need url")
    assert "'wado' goes with url" in complaint(tmp_path, PACS + 'retrieve = "wado"')


def test_reports_go_to_the_sender_or_where_it_says_or_to_the_default(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        '[delivery]\ndefault_destination = "ARCHIVE"\n'
        + PACS
        + '[peers.CT]\nae_title = "CT1"\nhost = "h"\nport = 1\ndestination = "PACS"\n'
        + '[peers.ARCHIVE]\nae_title = "ARC"\nhost = "h"\nport = 1\n',
    )
    assert [config.destinations(ae) for ae in ("PACS", "CT1", "ARC", "STRANGER")] == [
        ("PACS",), ("PACS",), ("ARCHIVE",), ("ARCHIVE",),
    ]  # fmt: skip
    assert Config().destinations("STRANGER") == ()


def test_the_embedded_database_lies_in_the_folder(tmp_path: Path) -> None:
    config = loaded(tmp_path, f'[storage]\ndirectory = "{tmp_path}"')
    assert config.storage.url == f"sqlite:///{tmp_path}/willis.db"


def test_a_configuration_cannot_be_changed() -> None:
    sections = [Config(), Config().node, Peer(ae_title="A", host="h", port=1)]
    for section in sections:
        assert isinstance(section, BaseModel)
        with pytest.raises(ValueError, match="frozen"):
            setattr(section, "port", 1)  # noqa: B010  mypy knows that it is frozen


def test_an_ae_title_is_stripped_of_its_padding(tmp_path: Path) -> None:
    assert loaded(tmp_path, '[node]\nae_title = " MY NODE  "').node.ae_title == "MY NODE"


TWO_VIEWERS = """
[report]
results = ["sr", "sc"]

[peers.CT]
ae_title = "CT1"
host = "h"
port = 104
destination = ["PACS", "VIEWER", "PACS"]

[peers.PACS]
ae_title = "PACS"
host = "h"
port = 104
results = ["sr"]

[peers.VIEWER]
ae_title = "VIEWER"
host = "h"
port = 104
region = "3d"
"""


def test_each_destination_gets_its_own_results_with_its_own_marking(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(TWO_VIEWERS, "utf-8")
    config = load(path, {})
    assert config.destinations("CT1") == ("PACS", "VIEWER")
    assert config.getting("sr", "CT1") == {"2d": ("PACS",), "3d": ("VIEWER",)}
    assert config.getting("sc", "CT1") == {"3d": ("VIEWER",)}
    assert config.getting("sc", "VIEWER") == {"3d": ("VIEWER",)}
    assert config.getting("sr", "STRANGER") == {}
    path.write_text(TWO_VIEWERS.replace('["PACS", "VIEWER", "PACS"]', '["PACS", "NOBODY"]'), "utf-8")
    with pytest.raises(ConfigError, match=r"\[peers.CT\] destination = 'NOBODY' is not a configured peer"):
        load(path, {})


@pytest.mark.parametrize("section", ["[report]", '[peers.PACS]\nae_title = "A"\nhost = "b"\nport = 104'])
def test_masks_alone_are_no_result_for_a_negative_series_has_none(tmp_path: Path, section: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'{section}\nresults = ["seg"]\n', "utf-8")
    with pytest.raises(ConfigError, match=r'results = .*name "sr" or "sc" beside it'):
        load(path, {})


def test_an_unknown_result_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[report]\nresults = ["sr", "pdf"]\n', "utf-8")
    with pytest.raises(ConfigError, match=r"report.results.1 = 'pdf'"):
        load(path, {})


def test_reviews_need_an_organization_and_a_report_to_replace(tmp_path: Path) -> None:
    reviews = f"{PACS}reviews = true\n"
    assert "[peers.PACS] reviews = true needs [report] organization" in complaint(tmp_path, reviews)
    named = f'[report]\norganization = "St. Elsewhere"\n{reviews}'
    assert loaded(tmp_path, named).reviewing("PACS") == {Region.CIRCLE_2D: ("PACS",)}
    assert 'needs "sr" among its results' in complaint(tmp_path, f'{named}results = ["sc"]\n')
    assert loaded(tmp_path, PACS).reviewing("PACS") == {}


ENGINE = '[ai]\nengine = "dask"\nengine_address = '
OF_ENGINE = '\n[ai.engine_tls]\ncertificate = "engine.pem"\nkey = "engine.key"\nca = "/etc/ca.pem"'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[ai]\nengine = "dask"', '[ai] engine = "dask" needs engine_address, that of its scheduler, e.g. '),
        (ENGINE + '"tls://10.1.2.3:8786"', "[ai] engine_address = 'tls://10.1.2.3:8786' needs [ai.engine_tls] with "),
        (
            ENGINE + '"tcp://10.1.2.3:8786"' + OF_ENGINE,
            "[ai] engine_address = 'tcp://10.1.2.3:8786': without TLS whoever reaches it could run programs here; write tls://",
        ),
        (ENGINE + '"tcp://gpu.hospital:8786"', "[ai] engine_address = 'tcp://gpu.hospital:8786': without TLS "),
        (ENGINE + '"tcp://127.0.0.1:0"', "[ai] engine_address = 'tcp://127.0.0.1:0': the port is a number from 1"),
        (ENGINE + '"tcp://127.0.0.1:99999"', "[ai] engine_address = 'tcp://127.0.0.1:99999': the port is a number"),
        (ENGINE + '"http://127.0.0.1:8786"', "ai.engine_address = 'http://127.0.0.1:8786': "),
        ('[ai]\nengine = "ray"', "ai.engine = 'ray': "),
    ],
)
def test_an_engine_that_anybody_could_use_is_refused(tmp_path: Path, content: str, said: str) -> None:
    assert complaint(tmp_path, content).startswith(f"config.toml: {said}")


def test_the_engines_certificates_lie_beside_the_file(tmp_path: Path) -> None:
    engine_tls = loaded(tmp_path, ENGINE + '"tls://10.1.2.3:8786"' + OF_ENGINE).ai.engine_tls
    assert engine_tls is not None
    assert (engine_tls.certificate, engine_tls.ca) == (tmp_path / "engine.pem", Path("/etc/ca.pem"))
    assert loaded(tmp_path, ENGINE + '"tcp://[::1]:8786"').ai.engine_host_and_port == ("::1", 8786)
