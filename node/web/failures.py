"""What is answered when a page failed: the edge, behind which the others go on."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.templating import Jinja2Templates

from node.runtime import log
from node.web.context import Context


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
    log.get().error("page_failed", error=type(error).__name__)
    if context.store.transactions.concerns_everybody(error):
        return _error_page(request, 503, "The database does not answer. This page tries again by itself.", retry=True)
    return _error_page(request, 500, "That went wrong; the administrator finds more in the node's log.")


def _error_page(request: Request, status: int, words: str, retry: bool = False) -> Response:
    templates: Jinja2Templates = request.app.state.templates
    values = {
        "message": words,
        "retry": retry,
        "account": None,
        "ae_title": request.app.state.context.config.node.ae_title,
    }
    headers = {"Retry-After": "5"} if retry else {}
    return templates.TemplateResponse(request, "error.html", values, status, headers)
