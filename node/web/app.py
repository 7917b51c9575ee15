"""The pages as one ASGI application."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from node.web import (
    account_list,
    account_pages,
    case_pages,
    image_pages,
    monitoring,
    provider_pages,
    scanners,
    statistics_pages,
    worklist_pages,
)
from node.web.api import make_api
from node.web.context import Context
from node.web.failures import failed, http_failure
from node.web.headers import SecurityHeaders
from node.web.requests import open_to_all, signed_in

HERE = Path(__file__).parent
THREADS = 12
"""Fewer than the database's connections, so that none waits for one."""


def make_app(context: Context, stopping: Callable[[], bool] = lambda: False) -> SecurityHeaders:
    """The application.  `stopping`: whether open event streams are to end."""
    app = Starlette(
        routes=[
            Route("/", signed_in(worklist_pages.worklist)),
            Route("/rows", signed_in(worklist_pages.rows)),
            Route("/events", worklist_pages.events(stopping)),
            Route("/sign-in", open_to_all(account_pages.show_sign_in)),
            Route("/sign-in", open_to_all(account_pages.sign_in), methods=["POST"]),
            Route("/sign-out", signed_in(account_pages.sign_out), methods=["POST"]),
            Route("/first", open_to_all(account_pages.show_first)),
            Route("/first", open_to_all(account_pages.make_first), methods=["POST"]),
            Route("/cases/{case:int}", signed_in(case_pages.case)),
            Route("/cases/{case:int}/review", signed_in(case_pages.review)),
            Route("/cases/{case:int}/review", signed_in(case_pages.change), methods=["POST"]),
            Route("/cases/{case:int}/images", signed_in(image_pages.images)),
            Route("/cases/{case:int}/images/{number:int}", signed_in(image_pages.image)),
            Route("/cases/{case:int}/thumbnail", signed_in(image_pages.small_image)),
            Route("/accounts", signed_in(account_list.accounts)),
            Route("/accounts", signed_in(account_list.change), methods=["POST"]),
            Route("/statistics", signed_in(statistics_pages.statistics)),
            Route("/statistics.csv", signed_in(statistics_pages.exported)),
            Route(scanners.ADDRESS, signed_in(statistics_pages.scanner_picture)),
            *provider_pages.routes(context),
            *monitoring.routes(),
            Mount(address := _static_address(), _Unchanging(directory=HERE / "static")),
            Mount("/static", StaticFiles(directory=HERE / "static")),
            Mount("/api", make_api(context)),
        ],
        exception_handlers={HTTPException: http_failure, Exception: failed},
        lifespan=_lifespan(stopping),
    )
    app.state.context = context
    app.state.templates = Jinja2Templates(directory=HERE / "templates")
    app.state.templates.env.globals |= {"version": version_of("willis"), "static": address}
    app.state.templates.env.trim_blocks = app.state.templates.env.lstrip_blocks = True
    return SecurityHeaders(app)


class _Unchanging(StaticFiles):
    """Files that browsers keep: with other contents they have another address."""

    def file_response(self, *arguments: Any, **keywords: Any) -> Response:
        """See StaticFiles."""
        response = super().file_response(*arguments, **keywords)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def _static_address() -> str:
    """Where the scripts and styles are, with their contents in the address."""
    contents = hashlib.sha256()
    for path in sorted((HERE / "static").rglob("*")):
        if path.is_file():
            contents.update(f"{path.relative_to(HERE)}\0{path.stat().st_size}\0".encode())
            contents.update(path.read_bytes())
    return f"/static/{contents.hexdigest()[:12]}"


def _lifespan(stopping: Callable[[], bool]) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        watching = asyncio.create_task(app.state.context.board.watch(stopping))
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    return lifespan
