"""Asking an HTTP API that speaks JSON and refuses in problem+json."""

import urllib.parse
from typing import Any, ClassVar

from support.asking import NoAnswer, ask
from support.errors import Refused


def in_path(name: str) -> str:
    """A name as one segment of a path."""
    return urllib.parse.quote(name, safe="")


class JsonApi:
    """One API, a connection per call; ``WHO`` is what it is called in messages."""

    WHO: ClassVar[str]
    ANSWER_SECONDS = 100.0

    def __init__(self, url: str, token: str = "") -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to one request.

        Raises:
            Refused: the API refused or is gone.
        """
        try:
            answer = ask(self._url + path, self.ANSWER_SECONDS, method, body, self._headers)
            content = answer.json()
        except (NoAnswer, ValueError) as error:
            raise Refused(0, f"the {self.WHO} does not answer ({method} {path}): {error}") from error
        if answer.status >= 400:
            raise Refused(answer.status, f"the {self.WHO} refuses: {content['title']}: {content['detail']}")
        return content
