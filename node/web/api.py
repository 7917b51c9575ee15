"""The same as JSON, for programs: names as in the view `worklist`; a bearer token from `willis user token`."""

from collections.abc import Iterable, Mapping
from importlib.metadata import version as version_of
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from node.web.assignees import no_assignee
from node.web.context import Context
from node.web.failures import ApiFailures
from node.web.listing import ANSWERS, OUTCOMES, SHOWN
from node.web.listing import Query as Filters
from node.web.sign_in import hash_of
from node.web.wording import entry_text
from storage.queries.accounts import Account, Role, TokenKind
from storage.queries.reviews import Action, ChangedMeanwhile, NotChanged, Rejection, Wanted
from storage.queries.worklist import Row

_MOST_CASES = 1000
_bearer = HTTPBearer(auto_error=False)


def _any_of(values: Iterable[str]) -> str:
    return f"^({'|'.join(dict.fromkeys(values))})$"


class CasesWanted(BaseModel):
    """Which cases are listed.  What is no filter, or no value of one, is refused: nobody gets a list of something else."""

    model_config = ConfigDict(extra="forbid")

    show: Annotated[
        str,
        Field(
            pattern=_any_of(SHOWN),
            description="open: not acknowledged, without what is not looked for; mine: of these, assigned to this account;"
            " done: acknowledged; all",
        ),
    ] = "open"
    outcome: Annotated[
        str,
        Field(
            pattern=_any_of((*OUTCOMES, *ANSWERS)),
            description="as the page's address has it, or as the view's column; not_eligible and covered are under `all`",
        ),
    ] = ""
    q: Annotated[
        str, Field(max_length=100, description="words that a case has: name, ID, accession number, place, date, #7")
    ] = ""
    limit: Annotated[int, Field(ge=1, le=_MOST_CASES)] = 100
    offset: Annotated[int, Field(ge=0)] = 0


class Change(BaseModel):
    """A change of a review, asked for by who saw `version` of it."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[int, Field(ge=0, description="of the review, as it was read")]
    action: Action
    finding: Annotated[int | None, Field(ge=1, description="which finding, counted from 1")] = None
    reason: Annotated[Rejection | None, Field(description="why a finding is rejected")] = None
    assigned_to: Annotated[str, Field(max_length=64)] = ""


def make_api(context: Context) -> FastAPI:
    """The API; its description is at its root."""
    api = FastAPI(title="Willis", version=version_of("willis"), docs_url=None, redoc_url=None)
    api.add_middleware(ApiFailures, context=context)

    def account_of(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Account:
        token = given.credentials if given else ""
        found = context.store.accounts.of_token(hash_of(token), TokenKind.API, context.clock()) if token else None
        if found is None:
            raise HTTPException(
                401, "a bearer token is needed: `willis user token NAME`", {"WWW-Authenticate": "Bearer"}
            )
        return found

    Signed = Annotated[Account, Depends(account_of)]

    def row_of(case_id: int) -> Row:
        row = context.store.worklist.case(str(case_id))
        if row is None:
            raise HTTPException(404, f"no case {case_id}")
        return row

    @api.get("/", include_in_schema=False)
    def description(request: Request) -> Response:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/openapi.json")

    @api.get("/cases", summary="The cases, the most urgent first; filters as in the page's address")
    def cases(account: Signed, wanted: Annotated[CasesWanted, Query()]) -> dict[str, Any]:
        query = Filters(wanted.show, wanted.outcome, wanted.q)
        found = context.board.current().ranked(context.clock(), query.wanted(account.name))
        part = found[wanted.offset : wanted.offset + wanted.limit]
        return {"total": len(found), "cases": [dict(row) for row in part]}

    @api.get("/cases/{case_id}", summary="One case: the view's columns, and its review")
    def case(case_id: int, account: Signed, request: Request) -> dict[str, Any]:
        row = row_of(case_id)
        context.record_access(row, account, request.client.host if request.client else "", changed=False)
        return {**row, "review": _review(context, case_id)}

    @api.get("/cases/{case_id}/history", summary="Who changed the review, when and how")
    def history(case_id: int, _account: Signed) -> list[dict[str, Any]]:
        row_of(case_id)
        return [vars(entry) for entry in context.store.reviews.entries(case_id)]

    @api.post("/cases/{case_id}/review", summary="Acknowledge, assign, accept, reject, undo", responses={409: {}})
    def change(case_id: int, wanted: Change, account: Signed, request: Request) -> dict[str, Any]:
        row = row_of(case_id)
        _check_assignment(context, wanted, account)
        asked = Wanted(
            case_id,
            wanted.version,
            wanted.action,
            account.name,
            wanted.finding,
            wanted.reason or "",
            wanted.assigned_to,
            account.may(Role.LEAD),
        )
        try:
            context.store.reviews.change(asked, context.clock())
        except ChangedMeanwhile as error:
            by = f": {error.last.account} {entry_text(error.last)}" if error.last else ""
            raise HTTPException(409, f"{error}{by}; read the case again") from None
        except NotChanged as error:
            raise HTTPException(409, str(error)) from None
        context.record_access(row, account, request.client.host if request.client else "", changed=True)
        return dict(_review(context, case_id))

    return api


def _check_assignment(context: Context, wanted: Change, account: Account) -> None:
    if wanted.action is not Action.ASSIGNED or wanted.assigned_to in ("", account.name):
        return
    if not account.may(Role.LEAD):
        raise HTTPException(403, "only a lead may give a case to somebody else")
    if why := no_assignee(context.store.accounts, wanted.assigned_to):
        raise HTTPException(422, why)


def _review(context: Context, case_id: int) -> Mapping[str, Any]:
    found = context.store.reviews.of(case_id)
    return {} if found is None else {**vars(found), "verdicts": [vars(each) for each in found.verdicts]}
