"""Signing in and out, and the first account."""

from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from node.audit.messages import SignIn
from node.errors import ConfigError, Refused
from node.runtime import log
from node.web.identity import LOCAL_GO_ON, NotAdmitted, Note, Reason
from node.web.passwords import checked_password
from node.web.requests import SESSION_COOKIE, Asked, inside, set_cookie
from node.web.sign_in import SigningIn, checked_name, hash_of
from storage.queries.accounts import NameTaken, Role

NOT_DONE = "Your session had ended: what you asked for last was not done. Sign in, and do it again."


def show_sign_in(asked: Asked) -> Response:
    """The form; whoever has signed in goes on to where he wanted to go."""
    values = asked.request.query_params
    goal = inside(values.get("next", "/"))
    if asked.account.id:
        return RedirectResponse(goal, 303)
    return sign_in_page(asked, 200, goal, NOT_DONE if "not_done" in values else "")


def sign_in_page(asked: Asked, status: int, goal: str, message: str = "", name: str = "") -> Response:
    """The form, with what is wrong; and the provider's button where there is one."""
    oidc = asked.context.config.web.oidc
    other = {"name": oidc.name, "link": f"/sign-in/oidc?{urlencode({'next': goal})}"} if oidc else None
    return asked.page("sign_in.html", status, next=goal, message=message, name=name, other=other)


def sign_in(asked: Asked) -> Response:
    """A new session, or the form again with what is wrong."""
    name, context = asked.form.get("name", ""), asked.context
    goal = inside(asked.form.get("next", "/"))
    before = asked.request.cookies.get(SESSION_COOKIE, "")
    try:
        account, token = signing_in(asked).sign_in(name, asked.form.get("password", ""), asked.host, before)
    except (Refused, ConfigError) as error:
        return refused(asked, error, goal, name)
    context.record_sign_in(SignIn.LOGIN, account.name, asked.host)
    return enter(asked, token, goal)


def refused(asked: Asked, error: Refused | ConfigError, goal: str, name: str = "") -> Response:
    """The login page with why nobody was let in; that is in the audit trail, and in the log where a provider was asked."""
    status, reason, message = 403, "", str(error)
    if isinstance(error, ConfigError):
        status, reason, message = 503, "config", f"{error}; {LOCAL_GO_ON}."
    elif isinstance(error, NotAdmitted):
        status, reason = 503 if error.reason is Reason.AWAY else 403, error.reason.value
    if reason:
        log.get().warning("sign_in_refused", reason=reason, remedy=message)
    asked.context.record_sign_in(SignIn.LOGIN, name[:64] or "-", asked.host, message)
    return sign_in_page(asked, status, goal, message, name)


def sign_out(asked: Asked) -> Response:
    """The session is void."""
    asked.context.store.accounts.void(hash_of(asked.token))
    asked.context.record_sign_in(SignIn.LOGOUT, asked.account.name, asked.host)
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(SESSION_COOKIE, path="/")
    return response


def show_first(asked: Asked) -> Response:
    """The form for the first account, to whoever has the link from the log."""
    token = asked.request.query_params.get("token", "")
    if not asked.context.first_start.fits(token):
        return asked.page("error.html", 403, message="This link is used up, or is none of this node's.")
    return asked.page("first.html", link_token=token, message="", name="")


def make_first(asked: Asked) -> Response:
    """The first account, an administrator's, is there and has signed in; the link is used up."""
    context, token = asked.context, asked.form.get("token", "")
    if not context.tries.allowed(asked.host, context.clock()) or not context.first_start.fits(token):
        return asked.page("error.html", 403, message="This link is used up, or is none of this node's.")
    try:
        name = checked_name(asked.form.get("name", ""))
        password = checked_password(name, asked.form.get("password", ""))
        if password != asked.form.get("again", ""):
            raise Refused("the two passwords differ")
        hashed = context.passwords.hashed(password)
        account = context.store.accounts.add(name, Role.ADMINISTRATOR, hashed, context.clock(), only_first=True)
    except NameTaken:
        context.first_start.token = ""
        return asked.page("error.html", 403, message="There is an account already; sign in with it.")
    except Refused as error:
        message = str(error)
        return asked.page(
            "first.html",
            422,
            link_token=token,
            message=message[0].upper() + message[1:] + ".",
            name=asked.form.get("name", ""),
        )
    context.first_start.token = ""
    context.record_account_change(account.name, f"made, {account.role}", account, asked.host)
    context.record_sign_in(SignIn.LOGIN, account.name, asked.host)
    return enter(asked, signing_in(asked).session(account), "/")


def signing_in(asked: Asked) -> SigningIn:
    """Who signs accounts in here."""
    context = asked.context
    return SigningIn(
        context.store.accounts,
        context.passwords,
        context.tries,
        context.config.web,
        context.clock,
        context.strangers,
        context.outside,
        noting(asked),
    )


def noting(asked: Asked) -> Note:
    """Has what a provider's answer makes of an account in the audit trail, by the person himself, who signs in."""
    return lambda account, done: asked.context.record_account_change(account.name, done, account, asked.host)


def enter(asked: Asked, token: str, goal: str) -> Response:
    """The browser has this session, and goes on."""
    response = RedirectResponse(goal, 303)
    set_cookie(response, asked.context, SESSION_COOKIE, token)
    return response
