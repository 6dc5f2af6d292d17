"""``/metrics``: for Prometheus."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response
from prometheus_client.exposition import choose_encoder

from lockstep_service.auth.boundary import signed_in
from lockstep_service.boundary import App
from lockstep_service.errors import Responses, UnauthenticatedError, describe

router = APIRouter(tags=["health"], dependencies=[signed_in])


_TEXT: Responses = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' form"}}


@router.get("/metrics", response_class=Response, responses=_TEXT | describe(UnauthenticatedError))
def get_service_metrics(app: App, accept: Annotated[str, Header()] = "") -> Response:
    """What the service counts and times, in Prometheus' text form.

    It wants the service's token, for on a machine with other users what goes on here is not theirs to see.
    """
    encode, content_type = choose_encoder(accept)
    return Response(encode(app.measures.registry), media_type=content_type)
