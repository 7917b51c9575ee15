"""A study on demand: ask a peer for it, and have what is missing come."""

import difflib
from contextlib import closing
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from node.audit.trail import Trail, open_trail
from node.cli.app import ConfigOption, app, as_owner, complaints, configuration, console, one_line_errors
from node.config.files import files_of
from node.config.peer import Peer
from node.config.sections import Config
from node.dicom.header import is_uid
from node.errors import ConfigError, Refused
from node.runtime.clock import utc_now
from node.runtime.notify import NODE_PROCESS, wake
from node.scp.inlet import Inlet
from node.scu.remote import remote_of
from node.scu.source import Source
from node.workflow.retrieval import Brought, bring
from storage.files.instances import Files
from storage.store import Store

LIMIT_SECONDS = 3600.0


def peer_called(config: Config, text: str, option: str = "--from") -> Peer:
    """The peer with this name, else the first with this AE title.  Raises ConfigError: the `option` and the nearest."""
    if text in config.peers:
        return config.peers[text]
    if found := config.peer_named(text):
        return found[1]
    known = list(dict.fromkeys([*(peer.ae_title for peer in config.peers.values()), *config.peers]))
    near = difflib.get_close_matches(text.upper(), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"peers are: {', '.join(known) or 'none'}"
    raise ConfigError(f"{option} {text!r} is no configured peer; {hint}")


def progress_bar(is_off: bool = False) -> Progress:
    """A bar on standard error: how many of how many, and for how long."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=complaints, disable=is_off)


def studies_called(source: Source, text: str) -> list[str]:
    """The studies with this Study Instance UID or Accession Number.  Raises Refused when the peer has none."""
    if not text.strip() or any(character in text for character in "*?\\"):
        raise Refused(f"{text!r} is no Accession Number or Study Instance UID: no wildcards")
    found = source.studies(study_instance_uid=text) if "." in text and is_uid(text) else []
    if not (found or (found := source.studies(accession_number=text))):
        raise Refused(f"nothing found: no study with the Accession Number or Study Instance UID {text!r}")
    return found


@app.command(epilog="Example: willis fetch A12345 --from PACS")
def fetch(
    study: Annotated[str, typer.Argument(metavar="ACCESSION|STUDY_UID", help="The study.")],
    source_ae: Annotated[str, typer.Option("--from", help="Name or AE title of a configured peer.")],
    config: ConfigOption = None,
) -> None:
    """Fetch the CT series of a study from a peer; exit status 1 when an instance did not come."""
    with one_line_errors():
        settings = as_owner(configuration(config))
        peer = peer_called(settings, source_ae)
        files = files_of(settings)
        with closing(open_trail(settings)) as trail:
            total, left = _fetched(settings, peer, study, files, trail)
        counts = f"{total.came} came, {total.known} known before, {total.failed} failed"
        console.print(f"{counts}; {left} series without CT left there")
        if total.failed:
            raise typer.Exit(1)


def _fetched(settings: Config, peer: Peer, study: str, files: Files, trail: Trail) -> tuple[Brought, int]:
    """What became of the study's CT series, and how many others it has.  Raises Unavailable or Refused."""
    source = remote_of(settings, peer, trail, utc_now).source(LIMIT_SECONDS)
    listed = [series for uid in studies_called(source, study) for series in source.series(uid)]
    wanted = [series for series in listed if series.modality in ("CT", "")]
    if not wanted:
        others = ", ".join(sorted({series.modality for series in listed})) or "none"
        raise Refused(f"nothing to fetch: the study has no CT series (modalities: {others})")
    store, total = Store.open(settings.storage.url, files.folder), Brought(0, 0, 0)
    with progress_bar() as progress:
        task = progress.add_task(f"{len(wanted)} series from {peer.ae_title}", total=None)

        def on_instances(known: int, of: int) -> None:
            progress.update(task, completed=total.known + total.came + known, total=total.listed + of)

        for series in wanted:
            with Inlet(settings, store, files, peer, trail, utc_now) as inlet:
                total += bring(source, inlet, store, series, on_instances)
            wake(settings.storage.directory, NODE_PROCESS)
    store.close()
    return total, len(listed) - len(wanted)
