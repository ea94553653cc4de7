"""Marks: a lie leaves one each time that it is told, which proves that a scenario has come across it.

A scenario that turns red before its sabotage was reached has turned red for another reason (docs/sabotage.md).
"""

import json
import os
import time

VARIABLE = "FT_SABOTAGE_MARKS"
"""Names the file that gets the marks, a line of JSON each; not set: nobody wants to know."""


def leave(what: str) -> None:
    """Say that a lie is told now, and which."""
    if file := os.environ.get(VARIABLE):
        with open(file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"at": time.time(), "what": what}) + "\n")
