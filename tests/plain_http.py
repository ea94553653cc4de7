"""Plain HTTP for tests of what speaks it."""

import json
import urllib.error
import urllib.request
from typing import Any

from tests.patience import PATIENCE


class Client:
    """Plain HTTP, so that nothing of ours stands between the test and the service."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url, self.token = url, token

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None, **more: str) -> tuple[int, Any]:
        """Status and content; ``token`` is sent instead of the client's own, ``more`` are headers."""
        token = self.token if token is None else token
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        headers |= {name.capitalize(): value for name, value in more.items()}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            refusal = error
        assert refusal.headers["Content-Type"] == "application/problem+json", path
        return refusal.code, json.loads(refusal.read())
