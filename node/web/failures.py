"""What is answered when a page or the API failed: the edge, behind which the others go on."""

import re
import traceback
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.errors import safe_message
from node.runtime import log
from node.web.context import Context

_OURS = str(Path(__file__).parents[2])
_IN_BRACES = re.compile(r"\{(\w+)[^}]*\}")
_LATER = {"Retry-After": "5"}


def http_failure(request: Request, error: Exception) -> Response:
    """A page for a status that the framework found."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    if request.url.path.startswith("/static/"):
        return PlainTextResponse("", status)
    words = {404: "There is no such page.", 405: "This page takes no such request."}
    return _error_page(request, status, words.get(status, "That went wrong."))


def failed(request: Request, error: Exception) -> Response:
    """A page that says so; while the database is away, one that tries again by itself."""
    context: Context = request.app.state.context
    _note(request, error)
    if context.store.transactions.concerns_everybody(error):
        words = "The database does not answer. This page tries again by itself."
        return no_page(request, 503, words) or _error_page(request, 503, words, retry=True)
    words = "That went wrong; the administrator finds more in the node's log."
    return no_page(request, 500, words) or _error_page(request, 500, words)


def no_page(request: Request, status: int, words: str) -> Response | None:
    """The words for what a script or an image asks for, as it takes them; None where a page is asked for."""
    path = request.url.path
    if path.endswith("/images"):
        return JSONResponse({"message": words}, status)
    if path.endswith(("/thumbnail", "/events")) or "/images/" in path:
        return PlainTextResponse(words, status)
    return None


class ApiFailures:
    """Around an API: whoever asks for what fails is told so in JSON, and that to ask again helps while the database is away."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        """`app` answers."""
        self._app, self._context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as the app does."""
        has_begun = False

        async def noticing(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noticing)
        except Exception as error:
            if has_begun:
                raise
            answer = await run_in_threadpool(self._answer, Request(scope), error)
            await answer(scope, receive, send)

    def _answer(self, request: Request, error: Exception) -> Response:
        _note(request, error)
        if self._context.store.transactions.concerns_everybody(error):
            return JSONResponse({"detail": "the database does not answer; ask again"}, 503, _LATER)
        return JSONResponse({"detail": "that went wrong; the administrator finds more in the node's log"}, 500)


def _note(request: Request, error: Exception) -> None:
    """The log has what was asked for, what went wrong, and at which of our lines."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [each for each in frames if each.filename.startswith(_OURS) and "site-packages" not in each.filename]
    at = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    asked, number = _asked(request), request.path_params.get("case", request.path_params.get("case_id"))
    of = {} if number is None else {"case": number}
    log.get().error("page_failed", where=asked, error=safe_message(error), evidence=at, **of)


def _asked(request: Request) -> str:
    """Method and address as the program has it, `GET /cases/(case)`: what came over the wire is in no log."""
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is Match.FULL:
            address = _IN_BRACES.sub(r"(\1)", route.path)
            return f"{request.method} {request.scope.get('root_path', '')}{address}"
    return str(request.method)


def _error_page(request: Request, status: int, words: str, retry: bool = False) -> Response:
    templates: Jinja2Templates = request.app.state.templates
    values = {
        "message": words,
        "retry": retry,
        "account": None,
        "ae_title": request.app.state.context.config.node.ae_title,
    }
    return templates.TemplateResponse(request, "error.html", values, status, _LATER if retry else {})
