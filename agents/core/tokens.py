"""Bearer tokens as programs are given them: in a file or in the environment."""

import os
from pathlib import Path


def read_token(file: Path | None, variable: str) -> str:
    """The token in ``file`` or, without one, in the environment variable; empty when neither is given.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is empty, which would be no token at all, or no header could carry what is in it.
    """
    where, token = variable, os.environ.get(variable, "").strip()
    if file is not None:
        where, token = str(file), file.read_bytes().decode("utf-8", "replace").strip()
        if not token:
            raise ValueError(f"{where} is empty; expected a token; `openssl rand -hex 32` makes one")
    if not all("!" <= letter <= "~" for letter in token):
        raise ValueError(f"{where} holds more than one word of printable ASCII; expected one token")
    return token
