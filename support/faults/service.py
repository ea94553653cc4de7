"""Client of the fault service (docs/fault-service.md describes the API)."""

import http.client
import json
import os
import urllib.parse
from typing import Any


class FaultRefused(RuntimeError):
    """The fault service refused or is gone; ``status`` is the HTTP status, 0 when there was no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class FaultService:
    """One fault service; its methods raise :class:`FaultRefused` and return a fault as the API has it."""

    def __init__(self, url: str, token: str = "") -> None:
        self._address = urllib.parse.urlsplit(url).netloc
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})

    @classmethod
    def of_this_cell(cls) -> "FaultService":
        """The service of the cell that this process runs in.

        Raises:
            RuntimeError: this process runs in no cell.
        """
        if "FT_FAULTS" not in os.environ:
            raise RuntimeError("this process is in no cell; start it with behave or `python -m support.cells FILE`")
        return cls(os.environ["FT_FAULTS"], os.environ["FT_AGENT_TOKEN"])

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection(self._address, timeout=100)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), self._headers)
            answer = connection.getresponse()
            content = json.loads(answer.read())
        except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
            raise FaultRefused(0, f"the fault service does not answer ({method} {path}): {error}") from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise FaultRefused(answer.status, f"{content['title']}: {content['detail']}")
        return content

    def inject(self, family: str, **order: Any) -> dict[str, Any]:
        """Make a fault of a family (``process``, ``network``, ``gpu``); ``order`` is the body of the request."""
        return dict(self._call("POST", f"/api/v1/faults/{family}/inject", order))

    def get(self, fault_id: str) -> dict[str, Any]:
        """A fault with state, evidence and history."""
        return dict(self._call("GET", f"/api/v1/faults/{fault_id}"))

    def faults(self, active: bool = False) -> list[dict[str, Any]]:
        """All faults in short, or the live ones."""
        return list(self._call("GET", f"/api/v1/faults{'?active=true' if active else ''}"))

    def recover(self, fault_id: str) -> dict[str, Any]:
        """Undo a fault."""
        return dict(self._call("POST", f"/api/v1/faults/{fault_id}/recover"))

    def recover_all(self) -> list[dict[str, Any]]:
        """Undo every live fault."""
        return list(self._call("POST", "/api/v1/faults/recover"))

    def health(self) -> dict[str, Any]:
        """Whether it and its agents answer, and its pid."""
        return dict(self._call("GET", "/health"))
