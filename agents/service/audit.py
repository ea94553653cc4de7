"""The audit log: a line for every authorised call, before it changes anything and when it has ended."""

import errno
import json
import math
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import prometheus_client
from fastapi import Request

from agents.core.faults import Problem
from agents.service.policy import Policy

STRANGERS_SECONDS = 60.0
"""How often the log has a line of those without the token, at most."""


@dataclass(frozen=True)
class Asked:
    """What the audit log tells of a fault that is asked for."""

    kind: str | None = None
    type: str | None = None
    parameters: dict[str, Any] | None = None
    duration_seconds: float | None = None


def named(request: Request, dry_run: bool, targets: list[str], asked: Asked) -> list[str]:
    """Remember for the audit log what is asked for, before it is known whether there is such a thing."""
    request.state.target, request.state.dry_run, request.state.asked = targets, dry_run, asked
    return targets


class AuditLog:
    """The append-only log of a service.

    Args:
        policy: says where it is, and what it calls those who have the token.
        lines_lost: counts the lines for which there was no room.
    """

    def __init__(self, policy: Policy, lines_lost: prometheus_client.Counter) -> None:
        self._policy, self._lines_lost = policy, lines_lost
        self._strangers: Counter[int] = Counter()
        self._strangers_at = -math.inf
        policy.audit.parent.mkdir(parents=True, exist_ok=True, mode=0o700)

    def note(self, request: Request, status: int | None = None, seconds: float | None = None) -> None:
        """Append one line for a call: before it changes anything, without a status, and when it has ended.

        Raises:
            OSError: there is no room for it.
        """
        asked = getattr(request.state, "asked", None) or Asked()
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "call": request.state.call,
            "principal": self._policy.principal,
            "caller": request.client.host if request.client else "",
            "method": request.method,
            "path": request.url.path,
            "dry_run": getattr(request.state, "dry_run", False),
            "target": getattr(request.state, "target", None),
            "kind": asked.kind,
            "type": asked.type,
            "parameters": asked.parameters,
            "duration_seconds": asked.duration_seconds,
            "fault": getattr(request.state, "fault", None),
            "status": status,
            "seconds": None if seconds is None else round(seconds, 4),
        }
        self._append(line)

    def begun(self, request: Request, refuse: bool) -> None:
        """The line before a call acts; where there is no room for it, one that makes a fault is refused.

        Raises:
            Problem: 507.
        """
        try:
            self.note(request)
        except OSError as error:
            self._lost(error)
            if refuse:
                detail = f"the audit log cannot be written: {error.strerror}; nothing was done"
                raise Problem(507, "No room for the audit log", detail) from None

    def ended(self, request: Request, status: int, seconds: float) -> None:
        """The line after a call; whatever has become of it, its answer is not lost for lack of room.

        Those without the token share a line a minute: they do not fill the disk.
        """
        try:
            if request.state.known:
                self.note(request, status, seconds)
            else:
                self._strangers[status] += 1
                self.note_strangers(STRANGERS_SECONDS)
        except OSError as error:
            self._lost(error)

    def note_strangers(self, pause: float = 0.0) -> None:
        """Append a line for calls without the token, unless the last one is younger than ``pause`` seconds."""
        if self._strangers and time.monotonic() >= self._strangers_at + pause:
            self._strangers_at = time.monotonic()
            counts = {str(status): count for status, count in sorted(self._strangers.items())}
            self._strangers.clear()
            moment = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._append({"time": moment, "principal": None, "calls_by_status": counts})

    def _append(self, line: dict[str, Any]) -> None:
        """All of a line, or nothing of it."""
        data = (json.dumps(line) + "\n").encode()
        file = os.open(self._policy.audit, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            before = os.fstat(file).st_size
            try:
                if os.write(file, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.ftruncate(file, before)
                raise
        finally:
            os.close(file)

    def _lost(self, error: OSError) -> None:
        self._lines_lost.inc()
        print(f"fault service: {self._policy.audit}: {error.strerror}", file=sys.stderr, flush=True)
