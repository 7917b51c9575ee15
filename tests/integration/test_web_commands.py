"""`willis echo`, `send` and `config check` where a peer is reached by DICOMweb."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from node.cli.main import app
from tests.support.dicom_factory import ct_series, save
from tests.support.running import free_port
from tests.support.site import PeerFactory
from tests.support.web_server import Asked, Said, ServerFactory

pytestmark = pytest.mark.usefixtures("logging_restored")


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """Writes a configuration with these peers; returns its options."""

    def write(**peers: dict[str, Any]) -> list[str]:
        lines = [f"[storage]\ndirectory = {str(tmp_path / 'var')!r}"]
        for name, keys in peers.items():
            lines += [f"[peers.{name}]", *(f"{key} = {value!r}" for key, value in keys.items())]
        (tmp_path / "willis.toml").write_text("\n".join(lines) + "\n")
        return ["--config", str(tmp_path / "willis.toml")]

    return write


def willis(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_echo_tells_of_each_peer_whether_it_answers(
    web: ServerFactory, peer: PeerFactory, config: Any, tmp_path: Path
) -> None:
    pacs, archive = peer(), web(Said.of([]))
    options = config(
        PACS={"ae_title": "PACS", "host": "127.0.0.1", "port": pacs.port},
        AWAY={"ae_title": "AWAY", "host": "127.0.0.1", "port": free_port()},
        WEB={"ae_title": "ARCHIVE", "url": archive.url},
        LOCKED={"ae_title": "LOCKED", "url": web(Said(403)).url},
    )
    done = willis("echo", "PACS", "ARCHIVE", *options)
    assert (done.exit_code, done.stdout) == (0, "PACS: answers\nARCHIVE: answers\n")
    done = willis("echo", *options)
    assert (done.exit_code, done.stdout) == (1, "PACS: answers\nWEB: answers\n")
    assert "AWAY: no association with AWAY at 127.0.0.1:" in done.stderr
    assert "LOCKED: LOCKED answered HTTP 403: look at its username" in done.stderr
    assert not list(tmp_path.rglob("audit.log"))  # it keeps nothing of the answers
    done = willis("echo", "PCS", *options)
    assert (done.exit_code, "peer 'PCS' is no configured peer; did you mean PACS?" in done.stderr) == (2, True)


def test_of_two_peers_with_one_ae_title_the_one_is_asked_that_is_named(web: ServerFactory, config: Any) -> None:
    options = config(
        WEB={"ae_title": "PACS", "url": web(Said.of([])).url},
        PACS={"ae_title": "PACS", "host": "127.0.0.1", "port": free_port()},
    )
    done = willis("echo", *options)
    assert (done.exit_code, done.stdout) == (1, "WEB: answers\n")
    assert done.stderr.startswith("PACS: no association with PACS at 127.0.0.1:")


def test_send_stores_at_a_configured_peer_by_stow(web: ServerFactory, config: Any, tmp_path: Path) -> None:
    answers = iter([Said(), Said(415), Said(503)])
    listed = [{"00080018": {"vr": "UI", "Value": [ds.SOPInstanceUID]}} for ds in ct_series(2)]

    def answer(asked: Asked) -> Said:
        return next(answers) if asked.method == "POST" else Said.of(listed)

    server = web(answer)
    options = config(WEB={"ae_title": "ARCHIVE", "url": server.url})
    (tmp_path / "study").mkdir()
    save(ct_series(2), tmp_path / "study")
    (tmp_path / "study" / "note.txt").write_text("x")
    done = willis("send", tmp_path / "study", "--to", "WEB", *options)
    assert (done.exit_code, done.stdout) == (1, "1 sent, 1 skipped, 1 refused\n")
    assert "refused: ARCHIVE answered HTTP 415" in done.stderr
    done = willis("send", tmp_path / "study", "--to", "WEB", "--quiet", *options)
    assert (done.exit_code, "willis: ARCHIVE answered HTTP 503" in done.stderr) == (1, True)
    done = willis("send", tmp_path / "study", "--to", "WEBB", *options)
    assert (done.exit_code, "or the name of a configured peer" in done.stderr) == (2, True)


def test_config_check_reads_the_files_of_credentials(config: Any, tmp_path: Path) -> None:
    keys = {"ae_title": "ARCHIVE", "url": "https://pacs.example/dicom-web", "token_file": str(tmp_path / "token")}
    done = willis("config", "check", *config(WEB=keys))
    assert (done.exit_code, "token_file = " in done.stderr, "No such file" in done.stderr) == (2, True, True)
