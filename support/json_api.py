"""Asking an HTTP API that speaks JSON and refuses in problem+json."""

import http.client
import json
import urllib.parse
from typing import Any, ClassVar

from support.errors import Refused


def in_path(name: str) -> str:
    """A name as one segment of a path."""
    return urllib.parse.quote(name, safe="")


class JsonApi:
    """One API, a connection per call; ``WHO`` is what it is called in messages."""

    WHO: ClassVar[str]
    ANSWER_SECONDS = 100.0

    def __init__(self, url: str, token: str = "") -> None:
        self._address = urllib.parse.urlsplit(url).netloc
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to one request.

        Raises:
            Refused: the API refused or is gone.
        """
        connection = http.client.HTTPConnection(self._address, timeout=self.ANSWER_SECONDS)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), self._headers)
            answer = connection.getresponse()
            content = json.loads(answer.read())
        except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
            raise Refused(0, f"the {self.WHO} does not answer ({method} {path}): {error}") from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise Refused(answer.status, f"{content['title']}: {content['detail']}")
        return content
