"""The pages for people, and who may use them: web, user."""

import os
import pwd
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer
from rich.table import Table

from node.audit.messages import Person
from node.audit.trail import open_trail
from node.cli.app import ConfigOption, app, as_owner, configuration, console, one_line_errors, settings, trouble_noted
from node.config.sections import Config
from node.errors import NodeError
from node.runtime.clock import utc_now
from node.runtime.memory import end_soon
from node.web.listening import listen
from node.web.passwords import Passwords, checked_password
from node.web.person_names import checked_person_name
from node.web.sign_in import checked_name, hash_of, is_locked, new_token
from storage.queries.accounts import Account, Accounts, Role, TokenKind
from storage.store import Store

user_app = typer.Typer(no_args_is_help=True, help="Who may use the pages.")
app.add_typer(user_app, name="user")
NameArgument = Annotated[str, typer.Argument(help="The account's name.")]
PersonOption = Annotated[
    str | None,
    typer.Option(help="The person's name as DICOM writes it, Doe^Jane: it is on reviews that go back to a PACS."),
]
RoleOption = Annotated[Role, typer.Option(help="What it may do; each role may what those before it may.")]


@app.command(epilog="Example: willis web --config /etc/willis/config.toml")
def web(
    config: ConfigOption = None,
    as_child: Annotated[
        bool, typer.Option("--as-child", hidden=True, help="End with the process that started it.")
    ] = False,
) -> None:
    """Serve the pages alone, until SIGTERM or Ctrl-C; `willis serve` does too."""
    from node.config.reloading import Reloading
    from node.runtime.processes import end_with_parent, on_hangup

    with one_line_errors():
        asked = threading.Event()
        if as_child:
            end_with_parent(asked.set)
        elif sys.stdin is None or not sys.stdin.isatty():  # else SIGHUP says that its terminal is gone
            on_hangup(asked.set)
        checked = as_owner(configuration(config))
        with trouble_noted(checked, "web"):
            listen(checked).close()  # before the seconds that the rest takes to be imported
            from node.web.server import serve_pages

            serve_pages(checked, Reloading(asked, lambda: settings(config)))
            end_soon()


@user_app.command("add", epilog="Example: willis user add j.doe --role reader")
def add(
    name: NameArgument, role: RoleOption = Role.READER, person_name: PersonOption = None, config: ConfigOption = None
) -> None:
    """Make an account; its password is asked for, or read from standard input."""
    with one_line_errors():
        checked, person = checked_name(name), checked_person_name(person_name or "")
        accounts = _accounts(read := as_owner(configuration(config)))
        hashed = Passwords().hashed(checked_password(checked, _password()))
        with _recording(read) as record:
            accounts.add(checked, role, hashed, utc_now(), person_name=person)
            record(checked, f"made, {role}")
        console.print(f"{checked}: {role}", highlight=False)


@user_app.command("set", epilog="Example: willis user set j.doe --role lead")
def set_(
    name: NameArgument,
    role: Annotated[Role | None, typer.Option(help="Another role.")] = None,
    password: Annotated[
        bool, typer.Option("--password", help="Another password: asked for, or from standard input.")
    ] = False,
    person_name: PersonOption = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether it may sign in.")] = None,
    config: ConfigOption = None,
) -> None:
    """Change an account.  It is unlocked, its sessions end, and its tokens are void."""
    values: dict[str, Any] = {}
    done: list[str] = []
    with one_line_errors():
        checked = checked_name(name)
        if role is not None:
            values["role"] = role.value
            done.append(f"role {role}")
        if person_name is not None:
            values["person_name"] = person = checked_person_name(person_name)
            done.append(f"person's name {person}" if person else "no person's name")
        if enabled is not None:
            values["disabled_at"] = None if enabled else utc_now()
            done.append("enabled" if enabled else "disabled")
        accounts = _accounts(read := as_owner(configuration(config)))
        if password:
            values["password_hash"] = Passwords().hashed(checked_password(checked, _password()))
            done.append("password set")
        with _recording(read) as record:
            if not accounts.change(checked, **values):
                raise NodeError(f"no account {checked!r}; `willis user list` lists them")
            record(checked, ", ".join(done) or "unlocked")
        console.print(f"{checked}: changed", highlight=False)


@user_app.command("list")
def list_(config: ConfigOption = None) -> None:
    """List the accounts."""
    with one_line_errors():
        table = Table("Name", "Person", "Role", "Since", "Signs in", "State")
        now = utc_now()
        for account in _accounts(configuration(config)).all():
            since = f"{account.created_at:%Y-%m-%d}"
            table.add_row(
                account.name, account.person_name, account.role, since, account.provider, _state(account, now)
            )
        console.print(table)


@user_app.command("token", epilog="Example: willis user token ris --days 365")
def token(
    name: NameArgument,
    days: Annotated[float, typer.Option(min=0.001, max=3660, help="It expires after so many days.")] = 90,
    config: ConfigOption = None,
) -> None:
    """Print a token with which a program uses the API as this account; it is shown once."""
    with one_line_errors():
        accounts, now = _accounts(read := as_owner(configuration(config))), utc_now()
        account = accounts.named(checked_name(name))
        if account is None:
            raise NodeError(f"no account {name!r}; `willis user list` lists them")
        if account.disabled_at is not None:
            raise NodeError(
                f"{account.name} is disabled: a token would not work; `willis user set {account.name} --enable`"
            )
        made = new_token()
        with _recording(read) as record:
            accounts.give_token(account, hash_of(made), TokenKind.API, now, now + timedelta(days=days))
            record(account.name, f"token for {days:g} days")
        sys.stdout.write(f"{made}\n")


def _accounts(config: Config) -> Accounts:
    return Store.open(config.storage.url).accounts


@contextmanager
def _recording(config: Config) -> Iterator[Callable[[str, str], None]]:
    """What an account and what was done to it are given to is the audit trail, which says that who runs the command did it."""
    with closing(open_trail(config)) as trail:
        person = Person(_who(), socket.gethostname())
        yield lambda name, done: trail.record(lambda made: made.account_changed(name, done, person, utc_now()))


def _who() -> str:
    """The system's name of who runs the command, whatever the environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user may have none
        return f"uid {os.getuid()}"


def _password() -> str:
    """The password: asked for twice at a terminal, else the first line of standard input."""
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")


def _state(account: Account, now: datetime) -> str:
    if account.disabled_at is not None:
        return "disabled"
    return f"locked until {account.locked_until:%H:%M} UTC" if is_locked(account, now) else ""
