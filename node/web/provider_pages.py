"""Signing in at an OpenID Connect provider: the browser is sent there, and comes back with a code, once."""

from collections.abc import Callable
from datetime import timedelta

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from node.audit.messages import SignIn
from node.config.sign_in import Oidc
from node.errors import ConfigError
from node.web.account_pages import enter, noting, refused, sign_in_page, signing_in
from node.web.context import Context
from node.web.identity import LOCAL_GO_ON, NotAdmitted, Reason, admitted, highest_role
from node.web.requests import FORM_COOKIE, SESSION_COOKIE, Asked, inside, open_to_all
from node.web.sign_in import TOO_MANY, hash_of, new_token
from storage.queries.accounts import Account
from storage.queries.sign_in_requests import SignInRequest

ANSWER = "/sign-in/oidc/answer"
TO_COME_BACK = timedelta(minutes=15)
_AGAIN = "This answer was used already, is too old, or belongs to no sign-in that this browser began; sign in again."


def routes(context: Context) -> list[Route]:
    """The pages; none without [web.oidc]."""
    settings = context.config.web.oidc
    if settings is None:
        return []
    return [
        Route("/sign-in/oidc", open_to_all(lambda asked: _begin(asked, settings))),
        Route(ANSWER, open_to_all(lambda asked: _answer(asked, settings))),
    ]


def _begin(asked: Asked, settings: Oidc) -> Response:
    """The browser is sent to the provider."""
    context, goal = asked.context, inside(asked.request.query_params.get("next", "/"))
    if asked.account.id:
        return RedirectResponse(goal, 303)
    now = context.clock()
    if not context.tries.allowed(asked.host, now):
        return sign_in_page(asked, 403, goal, TOO_MANY)

    def begin() -> Response:
        from node.web.oidc import Begun, OpenIdProvider

        begun = Begun(new_token(), new_token(), new_token())
        address = OpenIdProvider(settings, context.config.web.address + ANSWER, context.clock).address(begun)
        request = SignInRequest(hash_of(begun.state), hash_of(asked.token), begun.nonce, begun.code_verifier, goal)
        context.store.sign_in_requests.begin(request, now, now + TO_COME_BACK)
        return RedirectResponse(address, 303)

    return _guarded(asked, goal, begin)


def _answer(asked: Asked, settings: Oidc) -> Response:
    """A new session for whom the provider vouches for, or the login page with what is wrong."""
    context, query = asked.context, asked.request.query_params
    # not counted as a try: a state is good for one answer, and whoever has one was counted when it was made
    request = context.store.sign_in_requests.take(hash_of(query.get("state", "")), context.clock())
    goal = request.goal if request else "/"

    def answer() -> Response:
        browser = asked.request.cookies.get(FORM_COOKIE, "")
        if request is None or not browser or hash_of(browser) != request.browser_sha256:
            raise NotAdmitted(Reason.STATE, _AGAIN)
        if query.get("iss", settings.issuer) != settings.issuer:  # RFC 9207
            raise NotAdmitted(Reason.ISSUER, f"Another issuer than {settings.name} answered; sign in again.")
        if "code" not in query:
            code = query.get("error", "no code")
            why = "access was denied there" if code == "access_denied" else f"it says {code[:60]!r}"
            raise NotAdmitted(Reason.REFUSED, f"{settings.name} did not let you in: {why}; sign in again.")
        account = _account(asked, settings, query["code"], request)
        token = signing_in(asked).session(account, asked.request.cookies.get(SESSION_COOKIE, ""))
        context.record_sign_in(SignIn.LOGIN, account.name, asked.host)
        return enter(asked, token, goal)

    return _guarded(asked, goal, answer)


def _account(asked: Asked, settings: Oidc, code: str, request: SignInRequest) -> Account:
    from node.web.oidc import OpenIdProvider

    context = asked.context
    provider = OpenIdProvider(settings, context.config.web.address + ANSWER, context.clock)
    person = provider.person(code, request.code_verifier, request.nonce)
    role = highest_role(person.groups, settings.roles, settings.default_role)
    remedy = f"an administrator gives one to a group of {settings.name} in [web.oidc] roles"
    return admitted(context.store.accounts, person.identity, role, remedy, context.clock(), noting(asked))


def _guarded(asked: Asked, goal: str, act: Callable[[], Response]) -> Response:
    """What `act` answers; why not is on the login page, in the log and in the audit trail.

    A few are at work at once: however slow the provider is, most of the threads are there for others.
    """
    if not asked.context.outside.acquire(blocking=False):
        return sign_in_page(asked, 503, goal, f"Too many are signing in at once, or it answers slowly; {LOCAL_GO_ON}.")
    try:
        return act()
    except (NotAdmitted, ConfigError) as error:
        return refused(asked, error, goal)
    finally:
        asked.context.outside.release()
