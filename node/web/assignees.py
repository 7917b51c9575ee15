"""To whom a case can be given."""

from collections.abc import Sequence

from storage.queries.accounts import Account, Accounts


def no_assignee(accounts: Accounts, name: str) -> str:
    """Why the account of this name gets no case, as a sentence without its end; "" where it may."""
    account = accounts.named(name)
    if account is None:
        return f"There is no account {name}"
    return f"The account {name} is disabled" if account.disabled_at is not None else ""


def choices(accounts: Sequence[Account], present: str) -> list[tuple[str, str]]:
    """Names and how each is shown: who may get the case, and who has it, even where he would get none."""
    able = [(each.name, each.name) for each in accounts if each.disabled_at is None]
    if present and (present, present) not in able:
        return [*able, (present, f"{present}, disabled")]
    return able
