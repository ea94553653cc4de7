"""Refusals and failures as the service's callers see them: problem+json (RFC 9457)."""

from typing import Any

from fastapi.responses import JSONResponse

from agents.service import models


def problem(status: int, title: str, detail: str, allowed: list[str] | None = None) -> JSONResponse:
    """A problem+json answer."""
    page = models.ProblemPage(title=title, status=status, detail=detail, allowed=allowed)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    content = page.model_dump(exclude_none=True)
    return JSONResponse(content, status, headers, media_type="application/problem+json")


_PAGE = {"content": {"application/problem+json": {"schema": models.ProblemPage.model_json_schema()}}}
_WORDS = {
    401: "no token",
    403: "wrong token, or a target that is not allowed",
    404: "unknown target or fault",
    409: "a conflict with another fault, a limit exceeded, or an ambiguous target",
    411: "a body without a Content-Length",
    413: "a body that is too large",
    422: "a value that is not allowed",
    421: "an unknown Host name, or a page of another site",
    501: "this machine cannot do it",
    502: "an agent failed, or an undo did",
    503: "an agent does not answer",
    507: "no room on the disk for a record; nothing was done, or it was undone",
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": words} | _PAGE for status, words in _WORDS.items()
}
