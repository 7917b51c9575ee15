"""`willis user`: who may use the pages."""

import os
import pwd
import re
from base64 import b64decode
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from node.cli.main import app
from node.runtime.clock import utc_now
from storage.queries.accounts import Account, Role
from storage.store import Store

pytestmark = pytest.mark.usefixtures("logging_restored")


def willis(folder: Path, store: Store, *arguments: str, typed: str = "") -> Result:
    config = folder / "willis.toml"
    config.write_text(f'[storage]\ndatabase_url = "{store.transactions.engine.url}"\ndirectory = "{folder}"\n')
    return CliRunner().invoke(app, ["user", *arguments, "--config", str(config)], input=typed)


def locked(store: Store, name: str, for_: timedelta) -> Account:
    account = store.accounts.add(name, Role.READER, "hash", utc_now())
    assert store.accounts.failed(account, 1, for_, utc_now())
    return account


def test_an_account_is_called_locked_only_while_it_is(sqlite_store: Store, tmp_path: Path) -> None:
    locked(sqlite_store, "dr.now", timedelta(minutes=5))
    locked(sqlite_store, "dr.before", timedelta(minutes=-5))
    lines = {
        line.split()[1]: line for line in willis(tmp_path, sqlite_store, "list").stdout.splitlines() if "dr." in line
    }
    assert "locked" in lines["dr.now"] and "locked" not in lines["dr.before"]


def test_no_token_is_made_for_a_disabled_account(sqlite_store: Store, tmp_path: Path) -> None:
    sqlite_store.accounts.add("ris", Role.READER, "hash", utc_now())
    assert sqlite_store.accounts.change("ris", disabled_at=utc_now())
    refused = willis(tmp_path, sqlite_store, "token", "ris")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "ris is disabled" in refused.stderr and "--enable" in refused.stderr
    assert willis(tmp_path, sqlite_store, "set", "ris", "--enable").exit_code == 0
    assert willis(tmp_path, sqlite_store, "token", "ris").stdout.strip()


def test_what_the_command_does_to_an_account_is_in_the_audit_trail(sqlite_store: Store, tmp_path: Path) -> None:
    password = "correct horse"
    assert willis(tmp_path, sqlite_store, "add", "dr.new", "--role", "lead", typed=f"{password}\n").exit_code == 0
    changes = ("--role", "administrator", "--person-name", "Doe^Jane", "--password")
    assert willis(tmp_path, sqlite_store, "set", "dr.new", *changes, typed=f"{password} two\n").exit_code == 0
    assert willis(tmp_path, sqlite_store, "set", "dr.nobody", "--disable").exit_code == 1
    token = willis(tmp_path, sqlite_store, "token", "dr.new", "--days", "7").stdout.strip()
    trail = (tmp_path / "audit.log").read_text("utf-8")
    lines = [line for line in trail.splitlines() if "110137" in line]
    assert all(
        'ParticipantObjectID="dr.new"' in line and f'UserID="{pwd.getpwuid(os.getuid()).pw_name}"' in line
        for line in lines
    )
    done = [
        b64decode(value).decode()
        for line in lines
        for value in re.findall(r'type="Alert Description" value="([^"]*)"', line)
    ]
    assert done == ["made, lead", "role administrator, person's name Doe^Jane, password set", "token for 7 days"]
    assert password not in trail and token not in trail
