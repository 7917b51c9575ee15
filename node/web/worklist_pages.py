"""The worklist: the page, its rows alone, and the events that have them drawn anew."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from node.web.context import Context
from node.web.listing import OUTCOMES, ROWS_A_PAGE, SHOWN, Query, counts
from node.web.requests import SESSION_COOKIE, Asked
from node.web.sign_in import form_key, hash_of
from storage.queries.accounts import TokenKind

KEEP_ALIVE_SECONDS = 15.0
"""So often an open page hears something, and its session is looked at."""
_RETRY_MS = 1000


def worklist(asked: Asked) -> Response:
    """The page."""
    return asked.page("worklist.html", **_listing(asked))


def rows(asked: Asked) -> Response:
    """The table alone."""
    listing = _listing(asked)
    answer = asked.page("rows.html", **listing)
    if asked.request.headers.get("HX-Trigger") == "filters":
        address = listing["query"].address()
        answer.headers["HX-Replace-Url"] = f"/?{address}" if address else "/"
    return answer


def _listing(asked: Asked) -> dict[str, Any]:
    context, query = asked.context, Query.of(asked.request.query_params)
    now, snapshot = context.clock(), context.board.current()
    found = snapshot.ranked(now, query.wanted(asked.account.name), query.key(asked.account.name))
    last_page = max((len(found) - 1) // ROWS_A_PAGE + 1, 1)
    page = min(query.page, last_page)
    part = found[(page - 1) * ROWS_A_PAGE : page * ROWS_A_PAGE]
    known = context.board.deliveries([row["case_id"] for row in part])
    deliveries = [known.get(row["case_id"], "") for row in part]
    return {
        "query": query,
        "rows": context.row_texts.html(part, deliveries, now, form_key(asked.token), asked.templates.env),
        "number": len(part),
        "total": len(found),
        "first": (page - 1) * ROWS_A_PAGE + 1,
        "page": page,
        "last_page": last_page,
        "counts": snapshot.kept("counts", lambda: counts(snapshot.cases.values())),
        "shown": SHOWN,
        "outcomes": OUTCOMES,
    }


def events(stopping: Callable[[], bool]) -> Callable[[Request], Any]:
    """The endpoint of server-sent events: "changed" or "away" at once, and those of `Board.watch`; the data of "grown" are the cases."""

    async def endpoint(request: Request) -> Response:
        context: Context = request.app.state.context
        token = request.cookies.get(SESSION_COOKIE, "")
        if not await run_in_threadpool(_is_session, context, token):
            return Response(status_code=204)  # which an event source takes as its end
        return StreamingResponse(
            _events(context, token, stopping), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    return endpoint


def _is_session(context: Context, token: str) -> bool:
    try:
        return context.store.accounts.of_token(hash_of(token), TokenKind.SESSION, context.clock()) is not None
    except Exception:  # noqa: BLE001  the edge: without a database nobody is signed out
        return True


async def _events(context: Context, token: str, stopping: Callable[[], bool]) -> AsyncIterator[str]:
    queue = context.board.subscribe()
    try:
        first = "away" if context.board.is_away else "changed"
        yield f"retry: {_RETRY_MS}\nevent: {first}\ndata: now\n\n"
        while not stopping():
            try:
                event = await asyncio.wait_for(queue.get(), KEEP_ALIVE_SECONDS)
            except TimeoutError:
                if not await run_in_threadpool(_is_session, context, token):
                    return
                event = "alive"
            if event == "end":
                return
            name, _, cases = event.partition(" ")
            yield f"event: {name}\ndata: {cases or 'now'}\n\n"
    finally:
        context.board.unsubscribe(queue)
