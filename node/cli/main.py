"""The command line: a table of its commands.

A command's module, and with it torch, SQLAlchemy or pynetdicom, is imported when the command is called and not before, so
that `willis --help` and what only reads answer at once.
"""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from node.cli.app import app, console

__all__ = ["app"]

_TABLE = {
    "worklist:worklist": "List the cases, the most urgent first.",
    "worklist:show": "Show everything known of one case.",
    "worklist:status": "Say whether the node is ok, degraded or down, and why; then queues, disk, last errors and how long cases took.",
    "retry:retry": "Deliver a dead letter again; without one, analyse the case again as a new revision.",
    "demo:demo": "Send two synthetic studies from a simulated PACS through a node, and show the reports that come back.",
    "fetch:fetch": "Fetch the CT series of a study from a peer; exit status 1 when an instance did not come.",
    "dicom:echo": "Ask peers whether they hear us: C-ECHO, or with a url a QIDO-RS query; exit status 1 when one does not.",
    "dicom:send": "Send DICOM files to a peer; exit status 1 when any was refused.  What is not DICOM is skipped and named.",
    "dicom:peer": "Be a PACS: store what comes, answer C-ECHO, and C-FIND for counts, until Ctrl-C.",
    "explain:explain": "Analyse a case's images again and draw, for each finding, what the network saw in it.  Changes nothing.",
    "fsck:fsck": "Compare files, database and sha256; report each difference.  Never deletes; may run beside a working node.",
    "backup:backup": "Copy database and files beside a working node, so that they belong together.  Exit status 1 when a file is missing.",
    "backup:restore": "Put a backup back into a folder without a database; every file is compared with its SHA-256.",
    "drift:drift": "Compare what each scanner's last cases measured with its baseline.  Exit status 1 when something has drifted.",
    "shadow:shadow": "Compare what the second bundle ([ai] shadow) says of the same series with what was reported.",
    "reload:reload": "Have the running node of this host take model and certificates anew, without breaking an association or analysis.",
    "migrate:migrate": "Bring the database to the tables of this version, after a copy of it.  The node must be stopped.",
    "phantoms:phantom": "Write a synthetic head CTA as a DICOM series, without a patient and for tests only.",
    "serve:serve": "Run the node until SIGTERM or Ctrl-C.",
    "web:web": "Serve the pages alone, until SIGTERM or Ctrl-C; `willis serve` does too.",
    "web:user": "Who may use the pages.",
    "serve:receive": "Run the receiver alone, as `serve` does.",
    "serve:work": "Run the analysis alone, as `serve` does.",
    "engine:worker": "Analyse what the engine's scheduler places here, until SIGTERM or Ctrl-C.  It needs no database.",
    "engine:scheduler": "Run the engine's scheduler, which places analyses on workers, until SIGTERM or Ctrl-C.",
    "training:train": "Train a model; a run that was stopped continues from its checkpoint.",
    "training:evaluate": "Measure a bundle on phantoms and write a report.  All figures are phantom figures.",
    "training:submit": "Write the 14 probabilities of every series in a folder, one row each, with the challenge's column titles.",
    "serve:config": "The configuration file.",
}
"""Module of `node.cli` and command that it adds to `app`, and the first line of the command's help."""
COMMANDS = {name: (module, first_line) for key, first_line in _TABLE.items() for module, name in (key.split(":"),)}
"""The same by the names of the commands."""
HIDDEN = ("receive", "work")


class _OnDemand(TyperCommand):
    """Stands for a command in the list of all; becomes the command itself when it is called."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the command itself, whose module is imported now."""
        return called(str(self.name)).make_context(info_name, args, parent, **extra)


class _CommandTable(TyperGroup):
    """The group of all `COMMANDS`: those whose module was imported, and who stands for the others."""

    def __init__(self, **settings: Any) -> None:
        """`settings` are Typer's."""
        super().__init__(**settings)
        self.commands = {
            name: self.commands.get(name) or _OnDemand(name, help=first_line, hidden=name in HIDDEN)
            for name, (_, first_line) in COMMANDS.items()
        }


def called(name: str) -> Any:
    """The command of this name, its module imported."""
    import_module(f"node.cli.{COMMANDS[name][0]}")
    return typer.main.get_group(app).commands[name]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.print(f"willis {version('willis')}")
        raise typer.Exit


@app.callback(cls=_CommandTable)
def main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Finds intracranial aneurysms in head CT angiography and reports them to the PACS."""
