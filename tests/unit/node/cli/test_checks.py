"""`willis config check`: what it notices, and that it changes nothing."""

import hashlib
import os
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ai import device
from node.cli import checks
from node.cli.checks import problems
from node.config.loading import load
from node.config.sections import Config
from node.errors import ConfigError
from node.simulated_pacs import SimulatedPeer
from storage.database.engine import open_database
from storage.store import Store
from tests.support.absent import absent
from tests.support.certificates import Certificates, certificates
from tests.support.running import free_port
from tests.support.web_server import Said, ServerFactory, web

__all__ = ["certificates", "web"]
Check = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def enough_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the tests may have little."""
    monkeypatch.setattr(checks, "room_in", lambda _folder: (100 << 30, ""))


def checked(path: Path) -> Config:
    """The configuration there; its pages have a port of their own, because the usual one may be taken here."""
    environment = {} if "[web]" in path.read_text() else {"WILLIS_WEB__PORT": str(free_port())}
    return load(path, environment)


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """What is said of a configuration with these lines, whose model need not be read."""
    monkeypatch.setattr(checks, "_model", lambda _config: [])

    def run(content: str = "", ask_peers: bool = False) -> list[str]:
        path = tmp_path / "willis.toml"
        if "[node]" not in content:
            content = f"[node]\nport = {free_port()}\n{content}"
        path.write_text(content + "\n")
        return [("" if each.is_fatal else "warning: ") + each.message for each in problems(checked(path), ask_peers)]

    return run


def everything_in(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Every file and folder with its times and its content."""
    return {
        str(path): (
            path.stat().st_mtime_ns,
            path.stat().st_ctime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in (folder, *folder.rglob("*"))
    }


def made_older(url: str) -> str:
    """The database has the tables of the revision before, which is returned."""
    from alembic import command
    from alembic.config import Config

    from storage.database import revision

    engine = open_database(url)
    with engine.begin() as connection:
        settings = Config()
        settings.set_main_option("script_location", str(revision.MIGRATIONS))
        settings.attributes["connection"] = connection
        command.downgrade(settings, "-1")
        older = str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar())
    engine.dispose()
    return older


def test_the_port_of_the_pages_that_is_taken_is_a_warning(check: Check) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        [said] = check(f"[web]\nport = {server.getsockname()[1]}")
    assert said.startswith("warning: [web] port = ")


def test_a_check_of_a_new_folder_makes_nothing(check: Check, tmp_path: Path) -> None:
    check()
    before = everything_in(tmp_path)
    assert list(problems(checked(tmp_path / "willis.toml"))) == []
    assert everything_in(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["willis.toml"]


def test_a_check_does_not_migrate_an_older_database_nor_touch_its_files(check: Check, tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    made_older(f"sqlite:///{tmp_path / 'var' / 'willis.db'}")
    check()
    before = everything_in(tmp_path)
    [problem] = problems(checked(tmp_path / "willis.toml"))
    assert "run `willis migrate`" in problem.message
    assert everything_in(tmp_path) == before
    assert check('[storage]\nmigrate = "by_itself"') == []


@pytest.mark.postgresql
def test_a_check_does_not_migrate_postgresql(check: Check, postgresql_url: str) -> None:
    from sqlalchemy import create_engine

    before = made_older(postgresql_url)
    assert check(f'[storage]\ndatabase_url = "{postgresql_url}"\nmigrate = "by_itself"') == []
    [said] = check(f'[storage]\ndatabase_url = "{postgresql_url}"')
    assert "run `willis migrate`" in said
    engine = create_engine(postgresql_url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == before
    engine.dispose()


def test_a_check_beside_a_running_node_reads_its_database(check: Check, tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'var.db'}")
    store.transactions.engine.connect()
    assert check(f'[storage]\ndatabase_url = "sqlite:///{tmp_path / "var.db"}"') == []
    store.close()


def test_a_database_of_another_version_is_an_error(check: Check, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "w.db") as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('9999')")
    [said] = check('[storage]\ndatabase_url = "sqlite:///w.db"')
    assert "made by a later version of Willis (tables 9999; this one knows up to" in said


def test_a_gpu_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = tmp_path / "willis.toml"
    path.write_text(f'[node]\nport = {free_port()}\n[ai]\ndevice = "cuda:1"\n')
    [problem] = problems(checked(path))
    assert problem.is_fatal
    assert problem.message.startswith("[ai] device = 'cuda:1': there is no CUDA GPU here")
    assert "write 'auto' or 'cpu'" in problem.message


def test_a_gpu_beyond_the_last_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from ai.errors import DeviceError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device.chosen_device("cuda:0").index == 0
    with pytest.raises(DeviceError, match="cuda:0 to cuda:0; write one of them"):
        device.chosen_device("cuda:1")


def test_a_port_that_is_taken_and_a_host_that_is_not_ours_are_told_apart(check: Check) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        [said] = check(f"[node]\nport = {port}")
    assert said.startswith(f"[node] port = {port} (127.0.0.1:{port}): another program holds it")
    [said] = check(f'[node]\nhost = "192.0.2.1"\nport = {port}')
    assert "[node] host = '192.0.2.1'" in said and "this host has no such address" in said
    [said] = check(f'[node]\nhost = "no.such.host.invalid"\nport = {port}')
    assert "the host name cannot be resolved" in said


@pytest.mark.parametrize(
    ("host", "cause"),
    [("no.such.host.invalid", "the host name cannot be resolved"), ("a..b", "that is no host name")],
)
def test_a_peer_whose_name_is_none_or_cannot_be_resolved_is_an_error(check: Check, host: str, cause: str) -> None:
    [said] = check(f'[peers.PACS]\nae_title = "PACS"\nhost = "{host}"\nport = 104')
    assert said.startswith(f"[peers.PACS] host = '{host}': {cause}")


def test_peers_are_asked_when_that_is_wanted(check: Check, tmp_path: Path) -> None:
    pacs = SimulatedPeer(tmp_path / "pacs", "PACS")
    peers = f'[peers.PACS]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {pacs.start(0)}\n'
    peers += f'[peers.AWAY]\nae_title = "AWAY"\nhost = "127.0.0.1"\nport = {free_port()}'
    assert check(peers) == []
    [said] = check(peers, ask_peers=True)
    pacs.stop()
    assert said.startswith("[peers.AWAY] no association with AWAY at 127.0.0.1:")
    assert "connection refused: the host is up and nothing listens on that port" in said


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ('kind = "apprise"\nurl = "carrierpigeon://x"', "its url is none of apprise"),
        ('kind = "apprise"\nurl_file = "gone"', "no such file or folder"),
        ('kind = "hl7"\nurl = "mllp://ris.invalid:2575"', "the host name cannot be resolved"),
        ('kind = "fhir"\nurl = "https://127.0.0.1/fhir"', ""),
    ],
)
def test_a_target_of_notifications_that_cannot_be_reached_is_an_error(check: Check, target: str, said: str) -> None:
    found = check(f'[[notifications]]\nname = "a"\n{target}')
    assert [said in each and each.startswith("[[notifications]]") for each in found] == ([True] if said else [])


@pytest.mark.parametrize("url", ["mllp://u:hush@ris:port", "mllp://ris:70000", "mllp://ris"])
def test_a_url_file_without_a_port_that_can_be_used_is_an_error(check: Check, tmp_path: Path, url: str) -> None:
    (tmp_path / "ris.url").write_text(url)
    [said] = check('[[notifications]]\nname = "a"\nkind = "hl7"\nurl_file = "ris.url"')
    assert said.startswith("[[notifications]] a: its url")
    assert "port" in said and "hush" not in said


def tls(files: Certificates, who: str = "node", key: str = "") -> str:
    folder, port = files.folder, free_port()
    return f'[node.tls]\ncertificate = "{folder}/{who}.pem"\nkey = "{folder}/{key or who}.key"\nca = "{folder}/ca.pem"\nport = {port}'


def test_an_expired_certificate_of_ours_is_an_error(check: Check, certificates: Certificates) -> None:
    said = check(tls(certificates, "expired"))
    [fatal] = [each for each in said if not each.startswith("warning: ")]
    assert "expired.pem' expired on " in fatal
    assert "peers refuse it; renew it, then `willis reload`" in fatal


def test_a_certificate_that_expires_soon_is_a_warning(check: Check, certificates: Certificates) -> None:
    said = check(tls(certificates))
    assert said
    assert all(each.startswith("warning: ") and "expires on " in each for each in said)


def test_a_key_of_another_certificate_is_called_that(check: Check, certificates: Certificates) -> None:
    [said] = check(tls(certificates, "node", key="ct1"))
    assert "this key is not the one that the certificate was made for; name the key of its request" in said
    assert "fit" not in said


def test_a_file_that_is_no_certificate_is_called_that(check: Check, certificates: Certificates, tmp_path: Path) -> None:
    shutil.copy(certificates.folder / "node.key", tmp_path / "k.pem")
    lines = tls(certificates).replace(f"{certificates.folder}/node.pem", str(tmp_path / "k.pem"))
    [said] = check(lines)
    assert "each must be a PEM file" in said


def test_a_certificate_that_does_not_bear_our_host_is_a_warning(
    check: Check, certificates: Certificates, tmp_path: Path
) -> None:
    check(tls(certificates, "elsewhere"))
    config = checked(tmp_path / "willis.toml")
    assert not [each for each in checks._tls(config.node.tls, config) if "bears" in each.message]
    config = config.model_copy(update={"node": config.node.model_copy(update={"host": "willis.example"})})
    [problem] = [each for each in checks._tls(config.node.tls, config) if "bears" in each.message]
    assert not problem.is_fatal
    assert "it bears elsewhere.example and not [node] host = 'willis.example'" in problem.message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        absent("no file system can be mounted here (not root)")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_disk_with_too_little_room_is_an_error(
    check: Check, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from node.workflow.health import room_in

    monkeypatch.setattr(checks, "room_in", room_in)
    [said] = check(f'[storage]\ndirectory = "{small_disk}"')
    assert "only 16 MiB are free there; free some, or move it" in said
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    [said] = check(f'[storage]\ndirectory = "{small_disk}"')
    assert "the file system is read-only" in said


# --- relative paths


def test_relative_paths_are_those_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "willis.toml").write_text(
        '[storage]\ndirectory = "data"\ndatabase_url = "sqlite:///data/w.db"\n[ai]\nbundle = "model"\n'
        '[node.tls]\ncertificate = "n.pem"\nkey = "/etc/n.key"\nca = "ca.pem"\n'
        '[peers.P]\nae_title = "P"\nurl = "http://p/x"\ntoken_file = "token"\n'
    )
    config = checked(tmp_path / "willis.toml")
    assert config.node.tls is not None
    assert config.storage.directory == tmp_path / "data"
    assert config.storage.url == f"sqlite:///{tmp_path}/data/w.db"
    assert config.ai.bundle == tmp_path / "model"
    assert (config.node.tls.certificate, config.node.tls.ca) == (tmp_path / "n.pem", tmp_path / "ca.pem")
    assert str(config.node.tls.key) == "/etc/n.key"
    assert config.peers["P"].token_file == str(tmp_path / "token")


def test_a_database_that_lies_where_relative_paths_led_before_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "run" / "var").mkdir(parents=True)
    (tmp_path / "run" / "var" / "willis.db").touch()
    (tmp_path / "etc" / "willis.toml").write_text('[storage]\ndirectory = "var"\n')
    monkeypatch.chdir(tmp_path / "run")
    with pytest.raises(ConfigError, match="write that path into the configuration, or move it"):
        load(tmp_path / "etc" / "willis.toml", {})
    (tmp_path / "etc" / "var").mkdir()
    (tmp_path / "etc" / "var" / "willis.db").touch()
    assert load(tmp_path / "etc" / "willis.toml", {}).storage.directory == tmp_path / "etc" / "var"


@pytest.mark.parametrize("url", ["postgresql+psycopg://willis@127.0.0.1/willis", "sqlite:///willis.db"])
def test_files_or_a_named_database_that_lie_there_are_not_forgotten_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "run" / "var" / "instances").mkdir(parents=True)
    (tmp_path / "run" / "willis.db").touch()
    (tmp_path / "etc" / "willis.toml").write_text(f'[storage]\ndirectory = "var"\ndatabase_url = "{url}"\n')
    monkeypatch.chdir(tmp_path / "run")
    with pytest.raises(ConfigError, match="the files of this node are in"):
        load(tmp_path / "etc" / "willis.toml", {})
    (tmp_path / "etc" / "var" / "instances").mkdir(parents=True)
    if url.startswith("sqlite"):
        with pytest.raises(ConfigError, match="the database of this node is in"):
            load(tmp_path / "etc" / "willis.toml", {})
    else:
        assert load(tmp_path / "etc" / "willis.toml", {}).storage.directory == tmp_path / "etc" / "var"


def oidc(issuer: str, more: str = "") -> str:
    return f'[web.oidc]\nissuer = "{issuer}"\nclient_id = "willis"\ndefault_role = "reader"\n{more}'


def test_a_provider_s_files_and_host_are_looked_at_always_and_itself_when_that_is_wanted(
    check: Check, web: ServerFactory, tmp_path: Path
) -> None:
    web_port = f"[web]\nport = {free_port()}\n"
    [said] = check(web_port + oidc("https://127.0.0.1", 'client_secret_file = "gone"'))
    assert said.startswith("[web.oidc] client_secret_file = ") and said.endswith("No such file or directory")
    (tmp_path / "ca.pem").write_text("no certificate")
    [said] = check(web_port + oidc("https://127.0.0.1", 'ca = "ca.pem"'))
    assert said.startswith("[web.oidc] ca = ")
    [said] = check(web_port + oidc("https://id.invalid"))
    assert said.startswith("[web.oidc] the host of its issuer = 'id.invalid': the host name cannot be resolved")
    away = oidc(f"http://127.0.0.1:{free_port()}")
    assert check(web_port + away) == []
    [said] = check(web_port + away, ask_peers=True)
    assert said.startswith("warning: [web] single sign-on at 127.0.0.1:") and "cannot be reached" in said
    [said] = check(web_port + oidc(web(Said(404)).url), ask_peers=True)
    assert said.startswith("[web] single sign-on answers HTTP 404; is [web.oidc] issuer right?")


def test_an_audit_file_that_cannot_be_written_is_an_error(check: Check, tmp_path: Path) -> None:
    [said] = check(f'[audit]\nfile = "{tmp_path}/nowhere/audit.log"')
    assert said == f"[audit] file = '{tmp_path}/nowhere/audit.log': that folder is not there; make it"
    (tmp_path / "nowhere").mkdir()
    assert check(f'[audit]\nfile = "{tmp_path}/nowhere/audit.log"') == []
    [said] = check('[audit]\nfile = "/proc/audit.log"')
    assert said.startswith("[audit] file = '/proc/audit.log': ")


def test_root_is_warned_that_it_may_what_the_node_may_not(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "var").mkdir()
    if os.geteuid() == 0:
        os.chown(tmp_path / "var", 1, 1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    [said] = check()
    assert said.startswith("warning: root may what ") and "runuser -u " in said
