"""What the API says of who calls."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from lockstep_service.wire import Wire


class SessionRequest(BaseModel):
    """Opens a browser's session."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"token": "3fW..."}]})

    token: str = Field(min_length=1, max_length=512, description="The service's token, `<home>/token`")


class SessionUser(Wire):
    """Who is signed in."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": "ada"}]})

    user: str = Field(description="The user whose service this is")
