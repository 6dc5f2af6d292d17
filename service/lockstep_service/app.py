"""The application: routes, errors, sessions and headers put together."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from lockstep_service import health, problems
from lockstep_service.auth import endpoints as auth
from lockstep_service.auth.service import load_keys
from lockstep_service.boundary import Application
from lockstep_service.clusters import endpoints as clusters
from lockstep_service.dashboard import mount_dashboard
from lockstep_service.database import Database
from lockstep_service.dispatch.loops import Dispatch
from lockstep_service.events import endpoints as events
from lockstep_service.events.broadcaster import Broadcaster
from lockstep_service.guards import BodyLimit, SecurityHeaders
from lockstep_service.jobs import endpoints as jobs
from lockstep_service.metrics import endpoints as metrics
from lockstep_service.settings import Settings
from lockstep_slurm.client import select
from lockstep_slurm.client.protocol import SlurmClient


def create_app(settings: Settings, client: SlurmClient | None = None) -> FastAPI:
    """The application for ``settings``; it migrates the database, and dispatches while its lifespan lasts.

    ``client`` is for a caller that has one already; by default it is selected by the settings.
    """
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.runs_root.mkdir(mode=0o700, parents=True, exist_ok=True)
    broadcaster = Broadcaster()
    application = Application(
        settings=settings,
        database=Database(settings.url, broadcaster),
        broadcaster=broadcaster,
        client=client or select(settings.client, slurm_conf=settings.slurm_conf, home=settings.home),
        keys=load_keys(settings.home),
    )
    application.database.upgrade()
    api = routes(lifespan_of=application)
    api.state.application = application
    keys = application.keys
    api.add_middleware(
        SessionMiddleware,
        secret_key=keys.session_key,
        session_cookie=keys.cookie,
        max_age=settings.session_days * 86_400,
        same_site="strict",
    )
    api.add_middleware(BodyLimit, limit=settings.body_limit, except_for={"/records": settings.records_limit})
    api.add_middleware(GZipMiddleware, minimum_size=2048)
    api.add_middleware(TrustedHostMiddleware, allowed_hosts=_hosts(settings), www_redirect=False)
    api.add_middleware(SecurityHeaders)
    mount_dashboard(api)
    return api


def routes(lifespan_of: Application | None = None) -> FastAPI:
    """The routes and their errors: all that the OpenAPI document needs."""

    @asynccontextmanager
    async def lifespan(_api: FastAPI) -> AsyncIterator[None]:
        if lifespan_of is None:
            yield
            return
        with Dispatch(lifespan_of):
            yield
        lifespan_of.database.close()

    api = FastAPI(
        title="Lockstep",
        summary="Scale-out deep-learning training on CPU clusters",
        version=version("lockstep"),
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
        separate_input_output_schemas=False,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    problems.install(api)
    v1 = APIRouter(prefix="/api/v1")
    for part in (auth, jobs, metrics, events, clusters):
        v1.include_router(part.router)
    api.include_router(v1)
    api.include_router(health.router)
    return api


def _operation_id(route: APIRoute) -> str:
    return route.name


def _hosts(settings: Settings) -> list[str]:
    """By which names this service may be called: a name that a stranger's DNS points here is none of them."""
    own = {"127.0.0.1", "localhost", "::1", "[::1]", settings.host, socket.gethostname(), socket.getfqdn()}
    return sorted((own | set(settings.allowed_hosts)) - {"0.0.0.0", "::", ""})  # noqa: S104 - removed, not bound
