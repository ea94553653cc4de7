"""Asking an HTTP API that speaks JSON and refuses in problem+json."""

import http.client
import json
import urllib.parse
from typing import Any, ClassVar


def in_path(name: str) -> str:
    """A name as one segment of a path."""
    return urllib.parse.quote(name, safe="")


class Refused(RuntimeError):
    """The API refused or is gone; ``status`` is the HTTP status, 0 when there was no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class JsonApi:
    """One API, a connection per call; ``WHO`` is what it is called in messages, ``REFUSAL`` what its refusals raise."""

    WHO: ClassVar[str]
    REFUSAL: ClassVar[type[Refused]]
    ANSWER_SECONDS = 100.0

    def __init__(self, url: str, token: str = "") -> None:
        self._address = urllib.parse.urlsplit(url).netloc
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to one request; raises ``REFUSAL``."""
        connection = http.client.HTTPConnection(self._address, timeout=self.ANSWER_SECONDS)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), self._headers)
            answer = connection.getresponse()
            content = json.loads(answer.read())
        except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
            raise self.REFUSAL(0, f"the {self.WHO} does not answer ({method} {path}): {error}") from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise self.REFUSAL(answer.status, f"{content['title']}: {content['detail']}")
        return content
