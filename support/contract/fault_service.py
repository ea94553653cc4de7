"""Client of the fault service (docs/fault-service.md describes the API)."""

from typing import Any

from support.json_api import JsonApi, in_path


class FaultService(JsonApi):
    """One fault service; its methods raise :class:`Refused` and return a fault as the API has it."""

    WHO = "fault service"

    def inject(self, family: str, **order: Any) -> dict[str, Any]:
        """Make a fault of a family (:data:`support.faults.registry.FAMILIES`); ``order`` is the body of the request."""
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

    def health(self) -> dict[str, Any]:
        """Whether it and its agents answer."""
        return dict(self.call("GET", "/health"))
