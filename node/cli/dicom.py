"""DICOM from the command line: send files, or be a PACS."""

import re
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from node.cli.app import ConfigOption, app, complain, configuration, console, one_line_errors
from node.cli.fetch import peer_called, progress_bar
from node.config.peer import Peer
from node.config.sections import Tls
from node.errors import ConfigError, Refused, Unavailable
from node.net.tls import server_context
from node.runtime import log
from node.runtime.processes import asked_to_stop
from node.scu.dimse import Entity, Timeouts, our_entity
from node.scu.remote import remote
from node.simulated_pacs import Fault, SimulatedPeer

_ADDRESS = re.compile(r"(?P<ae>[^@]{1,16})@(?P<host>\[[0-9a-fA-F:]+\]|[^:@]+):(?P<port>\d{1,5})\Z")

ECHO_TIMEOUTS = Timeouts(acse=5, dimse=10, network=10)


def address(text: str) -> Peer:
    """The peer that `AE@HOST:PORT` means.  Raises ConfigError."""
    match = _ADDRESS.match(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ConfigError(
            f"{text!r} is no address; write AE@HOST:PORT, for example WILLIS@127.0.0.1:11112, or the name of a configured peer"
        )
    try:
        return Peer(ae_title=match["ae"], host=match["host"].strip("[]"), port=int(match["port"]))
    except ValidationError:
        raise ConfigError(
            f"{match['ae']!r} is no AE title (at most 16 printable ASCII characters, no backslash); write AE@HOST:PORT"
        ) from None


CertificateOption = Annotated[
    Path | None, typer.Option("--certificate", help="TLS: our certificate and its chain, PEM.")
]
KeyOption = Annotated[Path | None, typer.Option("--key", help="TLS: its private key, PEM, without a password.")]
CaOption = Annotated[Path | None, typer.Option("--ca", help="TLS: the CAs that sign the others' certificates, PEM.")]


def tls_of(certificate: Path | None, key: Path | None, ca: Path | None) -> Tls | None:
    """The certificates that the options name; None without any.  Raises ConfigError when one is missing."""
    if certificate is None and key is None and ca is None:
        return None
    if certificate is None or key is None or ca is None:
        raise ConfigError("TLS needs all three: --certificate, --key and --ca")
    return Tls(certificate=certificate, key=key, ca=ca)


def files_in(paths: Iterable[Path]) -> Iterator[Path]:
    """Every file under the paths, folders in order of name."""
    for path in paths:
        if path.is_dir():
            yield from sorted(entry for entry in path.rglob("*") if entry.is_file())
        elif path.exists():
            yield path
        else:
            raise ConfigError(f"{path} does not exist")


@app.command(epilog="Example: willis echo PACS")
def echo(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[PEER]...", help="Names or AE titles; none: all.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Ask peers whether they hear us: C-ECHO, or with a url a QIDO-RS query; exit status 1 when one does not."""
    with one_line_errors():
        settings, failed = configuration(config), 0
        for name in names or settings.peers:
            peer = peer_called(settings, name, "peer")
            try:
                remote(our_entity(settings.node, ECHO_TIMEOUTS), peer).echo()
            except (Unavailable, Refused) as error:
                failed += 1
                complain(f"{name}: {error}")
            else:
                console.print(f"{name}: answers")
        if failed or not settings.peers:
            raise typer.Exit(1)


@app.command(epilog="Example: willis send study/ --to WILLIS@127.0.0.1:11112 --as PACS")
def send(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files or folders of them.")],
    to: Annotated[str, typer.Option(help="Where to: AE@HOST:PORT, or the name of a configured peer.")],
    calling: Annotated[str, typer.Option("--as", help="The AE title that we call ourselves.")] = "WILLIS-SEND",
    quiet: Annotated[bool, typer.Option("--quiet", help="Say only what was refused, and the total.")] = False,
    certificate: CertificateOption = None,
    key: KeyOption = None,
    ca: CaOption = None,
    tls_name: Annotated[str, typer.Option(help="TLS: the name its certificate must bear, if not its host.")] = "",
    config: ConfigOption = None,
) -> None:
    """Send DICOM files to a peer; exit status 1 when any was refused.  What is not DICOM is skipped and named."""
    log.configure()
    with one_line_errors():
        tls, files = tls_of(certificate, key, ca), list(files_in(paths))
        settings = None if "@" in to else configuration(config)
        if settings and (to in settings.peers or settings.peer_named(to)):
            peer, tls = peer_called(settings, to), tls or settings.node.tls
        else:
            peer = address(to).model_copy(update={"tls": tls is not None, "tls_name": tls_name})
        counts = {"sent": 0, "skipped": 0, "refused": 0}
        with progress_bar(quiet) as progress:
            task = progress.add_task(f"sending to {peer.ae_title}", total=len(files))
            for sent in remote(Entity(calling, tls=tls), peer).send(files):
                progress.advance(task)
                counts[sent.word if sent.error else "sent"] += 1
                if sent.error or not quiet:
                    result = f"{sent.word}: {sent.error}" if sent.error else sent.word
                    progress.console.print(f"{sent.path}: {result}", markup=False, soft_wrap=True)
        console.print(", ".join(f"{count} {word}" for word, count in counts.items()))
        if counts["refused"] or not counts["sent"]:
            raise typer.Exit(1)


@app.command(epilog="Example: willis peer --port 11113 --folder received --fault refuse --status 0xA700")
def peer(
    port: Annotated[int, typer.Option(help="TCP port to listen on.")] = 11113,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    ae_title: Annotated[str, typer.Option("--ae", help="Its AE title.")] = "PACS",
    folder: Annotated[Path, typer.Option(help="Where it keeps what it gets.")] = Path("var/peer"),
    fault: Annotated[Fault, typer.Option(help="How it misbehaves.")] = Fault.NONE,
    status: Annotated[str, typer.Option(help="The status that `--fault refuse` answers.")] = "0xA700",
    delay_seconds: Annotated[float, typer.Option(help="The delay of `--fault slow`.")] = 5.0,
    certificate: CertificateOption = None,
    key: KeyOption = None,
    ca: CaOption = None,
) -> None:
    """Be a PACS: store what comes, answer C-ECHO, and C-FIND for counts, until Ctrl-C."""
    log.configure()
    with one_line_errors():
        tls = tls_of(certificate, key, ca)
        pacs = SimulatedPeer(
            folder,
            ae_title,
            fault,
            _status(status),
            delay_seconds,
            on_stored=lambda path: console.print(f"received {path}", soft_wrap=True),
            tls=server_context(tls) if tls else None,
        )
        pacs.start(port, host)
        console.print(f"{ae_title} listens on {host}:{port}, fault: {fault.value}; Ctrl-C ends it")
        is_to_stop = asked_to_stop(signal.SIGTERM, signal.SIGINT)
        while not is_to_stop():
            time.sleep(0.1)
        pacs.stop()


def _status(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise ConfigError(f"--status {text!r} is no number; write for example 0xA700") from None
