"""Client of the fault service (docs/fault-service.md describes the API)."""

import os
from collections.abc import Mapping
from typing import Any

from support.clock import now
from support.json_api import JsonApi, in_path


class FaultService(JsonApi):
    """One fault service; its methods raise :class:`Refused` and return a fault as the API has it."""

    WHO = "fault service"

    @classmethod
    def of_this_cell(cls) -> "FaultService":
        """The service of the cell that this process runs in.

        Raises:
            RuntimeError: this process runs in no cell.
        """
        if "FT_FAULTS" not in os.environ:
            raise RuntimeError("this process is in no cell; start it with behave or `python -m support.run.cells FILE`")
        return cls(os.environ["FT_FAULTS"], os.environ["FT_AGENT_TOKEN"])

    def inject(self, family: str, **order: Any) -> dict[str, Any]:
        """Make a fault of a family (``process``, ``network``, ``gpu``); ``order`` is the body of the request."""
        return dict(self.call("POST", f"/api/v1/faults/{family}/inject", order))

    def get(self, fault_id: str) -> dict[str, Any]:
        """A fault with state, evidence and history."""
        return dict(self.call("GET", f"/api/v1/faults/{in_path(fault_id)}"))

    def faults(self, active: bool = False) -> list[dict[str, Any]]:
        """All faults in short, or the live ones."""
        return list(self.call("GET", f"/api/v1/faults{'?active=true' if active else ''}"))

    def recover(self, fault_id: str) -> dict[str, Any]:
        """Undo a fault."""
        return dict(self.call("POST", f"/api/v1/faults/{in_path(fault_id)}/recover"))

    def recover_all(self) -> list[dict[str, Any]]:
        """Undo every live fault."""
        return list(self.call("POST", "/api/v1/faults/recover"))

    def health(self) -> dict[str, Any]:
        """Whether it and its agents answer, and its pid."""
        return dict(self.call("GET", "/health"))


def struck_at(fault: Mapping[str, Any], injected_at: float) -> float:
    """When the agent sent its signal; when it was asked where it says nothing of that."""
    return float(fault["evidence"].get("sent_at", injected_at))


def on_clock(fault: Mapping[str, Any]) -> dict[str, Any]:
    """What an event of the injection carries: ``fault``, its id, and ``until``, when it is over at the latest (one that
    is over as soon as it is done, now).
    """
    return {"fault": fault["id"], "until": now() if fault["state"] == "recovered" else fault["deadline"]}
