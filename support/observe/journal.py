"""What the workers of the ruler engine wrote down: which requests reached them, and how they left."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read(logs: Path) -> list[dict[str, Any]]:
    """One dictionary per request that reached a worker, oldest first.

    Keys: ``worker`` (node name), ``request_id``, ``at`` (received, seconds on :mod:`support.clock`), ``start``
    (number of tokens that it was given), ``max_tokens``, ``produced``, ``left_at`` and ``outcome`` (``finished``,
    ``stopped``: it was told to stop, ``abandoned``: its consumer went away); the last three are None where the worker
    died with the request. ``holds``: spells in which the gate held it (:mod:`support.world.gate`), each with ``from``,
    ``until`` (None: held to the last) and ``expired`` (whether nobody opened the gate). A line that
    its death has cut short is left out.
    """
    found = []
    for file in sorted(logs.glob("*.journal.jsonl")):
        worker = file.name.removesuffix(".journal.jsonl")
        open_requests: dict[str, dict[str, Any]] = {}
        text = file.read_bytes().decode("utf-8", "replace")  # the cut may go through a letter
        for line in _whole(text.splitlines()):
            if line["event"] == "received":
                entry = {"worker": worker} | {key: line[key] for key in ("request_id", "at", "start", "max_tokens")}
                entry |= {"produced": None, "left_at": None, "outcome": None, "holds": []}
                open_requests[line["request_id"]] = entry
                found.append(entry)
            elif line["event"] == "held":
                hold = {"from": line["at"], "until": None, "expired": False}
                open_requests[line["request_id"]]["holds"].append(hold)
            elif line["event"] == "released":
                hold = {"until": line["at"], "expired": line["expired"]}
                open_requests[line["request_id"]]["holds"][-1] |= hold
            elif entry := open_requests.get(line["request_id"], {}):
                entry |= {"produced": line["produced"], "left_at": line["at"], "outcome": line["outcome"]}
    return sorted(found, key=lambda entry: entry["at"])


def _whole(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)
