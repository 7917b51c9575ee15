"""What monitors ask, without a page: /healthz, /readyz and /metrics.

Anybody gets the verdict and what it is about: load balancers and probes have no account.  Why, in words, which name
folders, hosts and peers, and the metrics, get those with a token of `willis user token`; the metrics, which name the
peers and no patient, everybody with `[web] open_metrics`.
"""

import socket
from collections.abc import Callable
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from node.errors import safe_message
from node.rules.health import FULL_BYTES, Verdict, judge
from node.runtime import log
from node.web.context import Context
from node.web.metrics import NodeCollector
from node.web.sign_in import hash_of
from node.workflow.health import facts_of, room_in
from storage.queries.accounts import TokenKind

Answer = Callable[[Context, Request], Response]


def routes() -> list[Route]:
    """The three addresses."""
    return [
        Route(path, _endpoint(answer))
        for path, answer in (("/healthz", _health), ("/readyz", _ready), ("/metrics", _metrics))
    ]


def _endpoint(answer: Answer) -> Callable[[Request], object]:
    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(answer, request.app.state.context, request)

    return endpoint


def _health(context: Context, request: Request) -> Response:
    """The whole node's verdict; 503 when it is down."""
    health = judge(facts_of(context.config, context.clock(), context.store.transactions.reading_plainly))
    values: dict[str, Any] = {
        "health": health.verdict.value,
        "about": sorted({reason.about for reason in health.reasons}),
    }
    if _has_token(context, request):
        values["reasons"] = [vars(reason) for reason in health.reasons]
    return JSONResponse(values, 503 if health.verdict is Verdict.DOWN else 200)


def _ready(context: Context, _request: Request) -> Response:
    """Whether a sender should come to this host: 503 while its database is away or its disk full, and when it is about to stop."""
    host, folder = socket.gethostname()[:64], context.config.storage.directory.absolute()
    about = []
    try:
        if context.store.processes.drains(host, str(folder)):
            about.append("stop")
    except Exception as error:  # noqa: BLE001  the edge: whatever the database raises, it cannot be asked
        log.get().error("not_ready", error=safe_message(error))
        about.append("database")
    free_bytes, _ = room_in(folder)
    if free_bytes is None or free_bytes < FULL_BYTES:
        about.append("disk")
    return JSONResponse({"ready": not about, "about": about}, 503 if about else 200)


def _metrics(context: Context, request: Request) -> Response:
    """All of `NodeCollector`, as Prometheus reads it."""
    if not context.config.web.open_metrics and not _has_token(context, request):
        words = "a bearer token is needed (`willis user token NAME`), or [web] open_metrics = true\n"
        return PlainTextResponse(words, 401, {"WWW-Authenticate": "Bearer"})
    text = generate_latest(NodeCollector(context.config, context.store, context.clock))
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _has_token(context: Context, request: Request) -> bool:
    """Whether the request bears the token of an account; never, while the database cannot be asked."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token:
        return False
    try:
        return context.store.accounts.of_token(hash_of(token.strip()), TokenKind.API, context.clock()) is not None
    except Exception as error:  # noqa: BLE001  the edge: the verdict must be had without the database
        log.get().error("token_not_checked", error=safe_message(error))
        return False
