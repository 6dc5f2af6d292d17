"""The application: routes, errors, sessions and headers put together."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware

from lockstep_service import health, problems
from lockstep_service.auth import endpoints as auth
from lockstep_service.auth.boundary import is_known
from lockstep_service.auth.links import Links
from lockstep_service.auth.service import load_keys
from lockstep_service.auth.sessions import Sessions
from lockstep_service.boundary import Application
from lockstep_service.clusters import endpoints as clusters
from lockstep_service.dashboard import mount_dashboard
from lockstep_service.database import Database
from lockstep_service.described import Api
from lockstep_service.dispatch.loops import Dispatch
from lockstep_service.events import endpoints as events
from lockstep_service.events.broadcaster import Broadcaster, Change
from lockstep_service.events.follower import Follower
from lockstep_service.guards import BodyLimit, OwnNames, SecurityHeaders
from lockstep_service.jobs import endpoints as jobs
from lockstep_service.jobs.repository import Changed
from lockstep_service.metrics import endpoints as metrics
from lockstep_service.placement import endpoints as placement
from lockstep_service.settings import Settings
from lockstep_service.telemetry import endpoints as telemetry
from lockstep_service.telemetry.census import Census
from lockstep_service.telemetry.controller import counted
from lockstep_service.telemetry.measures import Measures
from lockstep_service.telemetry.requests import Requests
from lockstep_service.timeline import endpoints as timeline
from lockstep_slurm.client import select
from lockstep_slurm.client.protocol import SlurmClient
from lockstep_slurm.job import library
from lockstep_slurm.site import file as site


def create_app(settings: Settings, client: SlurmClient | None = None) -> FastAPI:
    """The application for ``settings``; it migrates the database, and dispatches while its lifespan lasts.

    ``client`` is for a caller that has one already; by default it is selected by the settings.
    """
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    broadcaster, measures = Broadcaster(), Measures()
    keys = load_keys(settings.home)
    application = Application(
        settings=settings,
        database=Database(settings.url, broadcaster),
        broadcaster=broadcaster,
        client=counted(client or select(settings.client, slurm_conf=settings.slurm_conf, home=settings.home), measures),
        measures=measures,
        keys=keys,
        links=Links(settings.link_seconds),
        sessions=Sessions(settings.home, keys, settings.session_days),
        site=site.read(site.find(settings.site, settings.home)),
    )
    application.runs.mkdir(mode=0o700, parents=True, exist_ok=True)
    library.provide(application.runs)
    application.database.upgrade()
    measures.registry.register(Census(application))
    api = routes(lifespan_of=application, with_api=settings.role != "dispatch")
    api.state.application = application
    api.add_middleware(
        BodyLimit,
        limit=settings.body_limit,
        except_for={"/records": settings.records_limit},
        known=lambda scope: is_known(application, Request(scope)),
    )
    api.add_middleware(
        SessionMiddleware,
        secret_key=keys.session_key,
        session_cookie=keys.cookie,
        max_age=settings.session_days * 86_400,
        same_site="strict",
        https_only=settings.https,
    )
    api.add_middleware(GZipMiddleware, minimum_size=2048)
    api.add_middleware(OwnNames, names=_hosts(settings))
    api.add_middleware(SecurityHeaders)
    api.add_middleware(Requests, measures=measures)
    if settings.role != "dispatch":
        mount_dashboard(api)
    return api


def routes(lifespan_of: Application | None = None, *, with_api: bool = True) -> FastAPI:
    """The routes and their errors: all that the OpenAPI document needs. Without the API: health and metrics only."""

    @asynccontextmanager
    async def lifespan(_api: FastAPI) -> AsyncIterator[None]:
        if lifespan_of is None:
            yield
            return
        with Dispatch(lifespan_of), _following(lifespan_of):
            yield
        lifespan_of.database.close()

    api = Api(
        title="Lockstep",
        summary="Scale-out deep-learning training on CPU clusters",
        version=version("lockstep"),
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
        separate_input_output_schemas=False,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json" if with_api else None,
    )
    problems.install(api)
    if with_api:
        # Each by itself: every level of routers is searched twice a request, at a tenth of a submission's CPU.
        for part in (auth, jobs, timeline, metrics, placement, events, clusters):
            api.include_router(part.router, prefix="/api/v1")
    api.include_router(health.router)
    api.include_router(telemetry.router)
    return api


def _following(app: Application) -> AbstractContextManager[object]:
    """Hears of what the other process does, where API and dispatch are two."""

    def publish(changes: Sequence[Changed]) -> None:
        for change in changes:
            app.broadcaster.publish(Change(change.id, "job"))

    def wake(changes: Sequence[Changed]) -> None:
        if any(change.to_dispatch for change in changes):
            app.wake()

    told = {"api": publish, "dispatch": wake}.get(app.settings.role)
    return nullcontext() if told is None else Follower(app.database, told)


def _operation_id(route: APIRoute) -> str:
    return route.name


def _hosts(settings: Settings) -> list[str]:
    """By which names this service may be called: a name that a stranger's DNS points here is none of them."""
    own = {"127.0.0.1", "localhost", "::1", settings.host, socket.gethostname(), socket.getfqdn()}
    names = own | set(settings.allowed_hosts)
    names |= {f"[{name}]" for name in names if ":" in name and "[" not in name}  # as a request has it
    return sorted(names - {"0.0.0.0", "::", "[::]", ""})  # noqa: S104 - removed, not bound
