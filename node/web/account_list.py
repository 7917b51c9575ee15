"""The accounts, for administrators: who there is, new ones, other roles and passwords, and who may not sign in any longer."""

from collections.abc import Callable
from typing import Any

from starlette.responses import RedirectResponse, Response

from node.errors import Refused
from node.web.passwords import checked_password
from node.web.person_names import checked_person_name
from node.web.requests import Asked
from node.web.sign_in import checked_name, is_locked
from storage.queries.accounts import NameTaken, NotPossible, Provider, Role

NOT_FOR_YOU = "Only an administrator sees this page."
_NOT_YOURSELF = "another administrator changes your role or disables you: so that nobody locks out the last one"


def accounts(asked: Asked) -> Response:
    """The page."""
    if not asked.account.may(Role.ADMINISTRATOR):
        return asked.page("error.html", 403, message=NOT_FOR_YOU)
    return _page(asked)


def change(asked: Asked) -> Response:
    """The account is made or changed as the form asks, or the page says why not."""
    if not asked.account.may(Role.ADMINISTRATOR):
        return asked.page("error.html", 403, message=NOT_FOR_YOU)
    act = _ACTIONS.get(asked.form.get("action", ""))
    try:
        if act is None:
            raise Refused("that cannot be done with an account")
        name = checked_name(asked.form.get("name", ""))
        done = act(asked, name)
    except (Refused, NameTaken, NotPossible) as error:
        message = str(error)
        return _page(asked, 422, message=f"{message[0].upper()}{message[1:]}.")
    asked.context.record_account_change(name, done, asked.account, asked.host)
    return RedirectResponse("/accounts", 303)


def _page(asked: Asked, status: int = 200, message: str = "") -> Response:
    now = asked.context.clock()
    listed = [
        {
            "name": each.name,
            "person_name": each.person_name,
            "role": each.role.value,
            "since": f"{each.created_at.astimezone(asked.context.zone):%d %b %Y}",
            "disabled": each.disabled_at is not None,
            "locked": is_locked(each, now),
            "own": each.name == asked.account.name,
            "provider": "" if each.provider is Provider.LOCAL else each.provider.upper(),
        }
        for each in asked.context.store.accounts.all()
    ]
    kept = asked.form if message and asked.form.get("action") == "add" else {}
    return asked.page(
        "accounts.html",
        status,
        accounts=listed,
        roles=[role.value for role in Role],
        message=message,
        name=kept.get("name", ""),
        person_name=kept.get("person_name", ""),
    )


def _add(asked: Asked, name: str) -> str:
    role = _role(asked)
    hashed = asked.context.passwords.hashed(_password(asked, name))
    person_name = checked_person_name(asked.form.get("person_name", ""))
    asked.context.store.accounts.add(name, role, hashed, asked.context.clock(), person_name=person_name)
    return f"made, {role.value}"


def _set_role(asked: Asked, name: str) -> str:
    role = _role(asked)
    _change(asked, _other(asked, name), role=role.value)
    return f"role {role.value}"


def _set_person_name(asked: Asked, name: str) -> str:
    person_name = checked_person_name(asked.form.get("person_name", ""))
    _change(asked, name, person_name=person_name)
    return f"person's name {person_name}" if person_name else "no person's name"


def _set_password(asked: Asked, name: str) -> str:
    _change(asked, name, password_hash=asked.context.passwords.hashed(_password(asked, name)))
    return "password set"


def _disable(asked: Asked, name: str) -> str:
    _change(asked, _other(asked, name), disabled_at=asked.context.clock())
    return "disabled"


def _enable(asked: Asked, name: str) -> str:
    _change(asked, name, disabled_at=None)
    return "enabled"


_ACTIONS: dict[str, Callable[[Asked, str], str]] = {
    "add": _add,
    "role": _set_role,
    "person": _set_person_name,
    "password": _set_password,
    "disable": _disable,
    "enable": _enable,
}
"""Each returns what was done, for the audit trail.  Each change ends the account's sessions and voids its tokens."""


def _change(asked: Asked, name: str, **values: Any) -> None:
    if not asked.context.store.accounts.change(name, **values):
        raise Refused(f"there is no account {name}")


def _other(asked: Asked, name: str) -> str:
    if name == asked.account.name:
        raise Refused(_NOT_YOURSELF)
    return name


def _role(asked: Asked) -> Role:
    try:
        return Role(asked.form.get("role", ""))
    except ValueError:
        raise Refused(f"a role is one of {', '.join(Role)}") from None


def _password(asked: Asked, name: str) -> str:
    password = checked_password(name, asked.form.get("password", ""))
    if password != asked.form.get("again", ""):
        raise Refused("the two passwords differ")
    return password
