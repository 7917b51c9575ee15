"""What every page needs of a request: who asks, what the form says, and that it comes from a page of ours."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.templating import Jinja2Templates

from node.runtime import log
from node.web.context import Context
from node.web.failures import failed, no_page
from node.web.sign_in import form_key, hash_of, is_form_key, new_token
from storage.queries.accounts import Account, Role, TokenKind

SESSION_COOKIE, FORM_COOKIE = "willis_session", "willis_form"
MOST_FORM_BYTES = 16_384
_NOBODY = Account(0, "", Role.READER, "", 0, None, None, None)  # type: ignore[arg-type]  # never shown, may nothing


@dataclass(frozen=True)
class Asked:
    """A request.  `token`: of the session; before signing in that of the form's cookie.  `form`: of a POST, checked."""

    request: Request
    context: Context
    templates: Jinja2Templates
    account: Account
    token: str
    form: Mapping[str, str]

    @property
    def host(self) -> str:
        """The address that asks."""
        return self.request.client.host if self.request.client else ""

    @property
    def by_script(self) -> bool:
        """Whether htmx asks, which takes a part of a page."""
        return "HX-Request" in self.request.headers

    def page(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """The template, filled with these values and what every page has."""
        common = {
            "account": self.account,
            "form_key": form_key(self.token),
            "ae_title": self.context.config.node.ae_title,
        }
        return self.templates.TemplateResponse(self.request, template, {**common, **values}, status)


Page = Callable[[Asked], Response]
Endpoint = Callable[[Request], Awaitable[Response]]


def signed_in(page: Page) -> Endpoint:
    """The page for those who have signed in; others are sent to do so."""

    async def endpoint(request: Request) -> Response:
        return await _answer(request, page, needs_account=True)

    return endpoint


def open_to_all(page: Page) -> Endpoint:
    """The page for anybody."""

    async def endpoint(request: Request) -> Response:
        return await _answer(request, page, needs_account=False)

    return endpoint


async def _answer(request: Request, page: Page, needs_account: bool) -> Response:
    body = await _body(request) if request.method == "POST" else b""
    if body is None:
        return Response("The form is too long.", 413, media_type="text/plain")
    try:
        return await run_in_threadpool(_answered, request, page, needs_account, body)
    except Exception as error:  # noqa: BLE001  the edge: a page that failed says so
        return failed(request, error)


async def _body(request: Request) -> bytes | None:
    """What was posted; None when it is more than any form of ours has."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_FORM_BYTES:
            return None
    return body


def _answered(request: Request, page: Page, needs_account: bool, body: bytes) -> Response:
    context: Context = request.app.state.context
    templates: Jinja2Templates = request.app.state.templates
    session = request.cookies.get(SESSION_COOKIE, "")
    account = context.store.accounts.of_token(hash_of(session), TokenKind.SESSION, context.clock()) if session else None
    if account is None and needs_account:
        return _to_sign_in(request)
    form_token = session if account else request.cookies.get(FORM_COOKIE, "")
    form = {
        key: values[-1] for key, values in parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True).items()
    }
    if request.method == "POST" and not is_form_key(
        form_token, form.get("form_key") or request.headers.get("X-Form-Key", "")
    ):
        log.get().warning("form_refused", where=request.url.path)
        asked = Asked(request, context, templates, account or _NOBODY, form_token, {})
        return asked.page(
            "error.html", 403, message="This form is not from a page of this sign-in; open the page again."
        )
    new = "" if account or form_token else new_token()
    asked = Asked(request, context, templates, account or _NOBODY, form_token or new, form)
    response = page(asked)
    if new:
        set_cookie(response, context, FORM_COOKIE, new)
    return response


def set_cookie(response: Response, context: Context, name: str, token: str) -> None:
    """The browser keeps the token, out of reach of scripts, until it is closed."""
    secure = context.config.web.url.startswith("https")
    response.set_cookie(name, token, httponly=True, samesite="lax", secure=secure, path="/")


def _to_sign_in(request: Request) -> Response:
    """The way back in, and from there to the page that was shown; what was posted is not kept, and the login page says so."""
    is_part, is_post = "HX-Request" in request.headers, request.method == "POST"
    if not is_part and (answer := no_page(request, 401, "Nobody is signed in any longer; sign in again.")) is not None:
        return answer
    query = f"?{request.url.query}" if request.url.query else ""
    wanted = _shown_before(request) if is_part or is_post else f"{request.url.path}{query}"
    values = {"next": wanted} if wanted != "/" else {}
    if request.url.path == "/sign-out":
        values = {}
    elif is_post:
        values["not_done"] = "1"
    way = f"/sign-in?{urlencode(values, safe='/')}" if values else "/sign-in"
    return Response(status_code=401, headers={"HX-Redirect": way}) if is_part else RedirectResponse(way, 303)


def _shown_before(request: Request) -> str:
    """The page of ours on which the browser asked for this; the first page where it does not say so."""
    context: Context = request.app.state.context
    try:
        page = urlsplit(request.headers.get("Referer", ""))
    except ValueError:
        return "/"
    if page.netloc not in (request.headers.get("Host"), urlsplit(context.config.web.address).netloc):
        return "/"
    return inside(page.path + (f"?{page.query}" if page.query else ""))


def inside(path: str) -> str:
    """`path` if it leads to a page of ours, else the first page: no link of ours leads elsewhere."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and "\n" not in path else "/"
