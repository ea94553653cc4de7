"""Client of the node agent (``agents/node_agent.py`` describes the API)."""

import http.client
import json
import os
import urllib.parse
from typing import Any


class AgentError(RuntimeError):
    """The node agent refused or is gone; ``status`` is the HTTP status, 0 when there was no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Agent:
    """One node agent; its methods raise :class:`AgentError`. Not to be shared between threads while a call is under
    way.
    """

    def __init__(self, url: str, token: str) -> None:
        self._address = urllib.parse.urlsplit(url).netloc
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    @classmethod
    def of_this_cell(cls) -> "Agent":
        """The agent of the cell that this process runs in.

        Raises:
            RuntimeError: this process runs in no cell.
        """
        try:
            return cls(os.environ["FT_AGENT"], os.environ["FT_AGENT_TOKEN"])
        except KeyError:
            message = "this process is in no cell; start it as `python -m support.launcher python FILE` or use behave"
            raise RuntimeError(message) from None

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection(self._address, timeout=60)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), self._headers)
            answer = connection.getresponse()
            content = json.loads(answer.read())
        except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
            raise AgentError(0, f"the node agent does not answer ({method} {path}): {error}") from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise AgentError(answer.status, f"{content['title']}: {content['detail']}")
        return content

    def add_node(self, name: str, role: str) -> str:
        """Make a node; returns its address."""
        return str(self._call("POST", "/v1/nodes", {"name": name, "role": role})["address"])

    def run(self, **spec: Any) -> dict[str, Any]:
        """Start a process on a node; the arguments are those of the agent's ``Spec``."""
        return dict(self._call("POST", "/v1/processes", spec))

    def processes(self) -> dict[str, dict[str, Any]]:
        """Node name -> state of its process."""
        return {each["node"]: each for each in self._call("GET", "/v1/processes")}

    def start_again(self, node: str) -> None:
        """Start the stopped process of a node again."""
        self._call("POST", f"/v1/processes/{node}/start")

    def gpus(self) -> dict[str, list[dict[str, Any]]]:
        """Node name -> telemetry of its simulated GPUs."""
        return dict(self._call("GET", "/v1/gpus"))

    def topology(self) -> dict[str, Any]:
        """Nodes with role, address and process, and the agent's own pid."""
        return dict(self._call("GET", "/v1/topology"))

    def history(self) -> list[dict[str, Any]]:
        """Every change of state since the cell began."""
        return list(self._call("GET", "/v1/history"))

    def world(self) -> dict[str, Any]:
        """Processes, network namespaces and links that the kernel shows in this cell."""
        return dict(self._call("GET", "/v1/world"))

    def remove_deployment(self) -> None:
        """End all processes and remove all nodes."""
        self._call("DELETE", "/v1/deployment")
