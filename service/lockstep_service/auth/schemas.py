"""What the API says of who calls."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lockstep_service.wire import Time, Wire


class SessionRequest(BaseModel):
    """Opens a browser's session, by a link's code or by the token."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"code": "9tK..."}, {"token": "3fW..."}]})

    code: str | None = Field(None, min_length=1, max_length=128, description="Of a link; it opens one session")
    token: str | None = Field(None, min_length=1, max_length=512, description="The service's token, `<home>/token`")

    @model_validator(mode="after")
    def _one_of_them(self) -> SessionRequest:
        if (self.code is None) == (self.token is None):
            raise ValueError("give `code` or `token`, and not both")
        return self


class SessionLink(Wire):
    """What lets a browser in once: `<address>/#code=<code>`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"code": "9tK...", "until": "2026-11-23T06:15:00.000Z"}]})

    code: str
    until: Time = Field(description="When it ends if nobody uses it")


class SessionUser(Wire):
    """Who is signed in."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": "ada"}]})

    user: str = Field(description="The user whose service this is")
