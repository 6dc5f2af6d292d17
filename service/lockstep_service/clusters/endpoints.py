"""``/clusters``: what Slurm has."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from lockstep_service.auth.boundary import signed_in
from lockstep_service.boundary import App, Reading
from lockstep_service.clusters import service
from lockstep_service.clusters.schemas import ClusterList, NodeList
from lockstep_service.errors import NotFoundError, UnauthenticatedError, describe

router = APIRouter(
    prefix="/clusters", tags=["clusters"], dependencies=[signed_in], responses=describe(UnauthenticatedError)
)


@router.get("")
def list_clusters(app: App, session: Reading) -> ClusterList:
    """The clusters that this service submits to."""
    return service.clusters(app, session)


@router.get("/{name}/nodes", responses=describe(NotFoundError))
def list_nodes(
    session: Reading, name: Annotated[str, Path(max_length=128, pattern="^[!-~]+$", examples=["default"])]
) -> NodeList:
    """The nodes of a cluster."""
    return service.nodes(session, name)
