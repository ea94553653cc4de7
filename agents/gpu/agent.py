"""The GPU agent: breaks the NVIDIA GPUs of the machine that it runs on, when asked, and gives them back.

It is a deployment of its own to the fault service (``--agent NAME=URL``) and the DaemonSet of
``agents/manifests/gpu-fault-injector.yaml``. Faults are in :mod:`agents.gpu.real_gpu`, options in
``agents/gpu/__main__.py``, the API in :mod:`agents.host.agent`, and ``GET /v1/gpus``: telemetry of all GPUs.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import pynvml
from aiohttp import web

from agents.core.faults import Problem
from agents.gpu.nvml import Cards
from agents.gpu.real_gpu import LOAD, RealGpuDriver
from agents.host.agent import HostAgent, HostSettings
from agents.host.pods import Api, is_of


class GpuAgent(HostAgent):
    """State and actions behind the HTTP API.

    Args:
        clock_control: whether clock and power settings may be touched.
        nvml: the module ``pynvml``, or something with functions of the same names.
        load: the command of :mod:`agents.gpu.load`.
    """

    called = "gpu agent"

    def __init__(
        self,
        settings: HostSettings,
        clock_control: bool = False,
        nvml: Any = pynvml,
        load: Sequence[str] = LOAD,
        api: Api | None = None,
    ) -> None:
        self.cards = Cards(nvml)
        super().__init__(settings, [RealGpuDriver(self.cards, self.places, clock_control, tuple(load))], api)

    def places(self, target: str) -> list[int]:
        """Indices of a target's GPUs: those its processes use; while none is used, all if it asks for any.

        Raises:
            Problem: 404 when there is no such target.
        """
        cards = self.cards.all()
        if target == self.settings.name:
            return [card.index for card in cards]
        pod = self.pods.get(target)
        if pod is None:
            known = ", ".join([self.settings.name, *self.pods])
            trouble = f" ({self.trouble})" if self.trouble else ""
            raise Problem(404, "Unknown target", f"no target {target!r}; known: {known}{trouble}")
        used = [card.index for card in cards if any(is_of(pid, pod) for pid in self.cards.processes(card))]
        return used or [card.index for card in cards if pod.wants_gpu]

    def telemetry(self) -> list[dict[str, Any]]:
        """All GPUs."""
        return [self.cards.reading(card) for card in self.cards.all()]

    async def nodes(self) -> list[dict[str, Any]]:
        """The machine, and the pods on it, each with its GPUs."""
        gpus = await asyncio.to_thread(self.telemetry)
        machine = {"name": self.settings.name, "role": "machine", "address": socket.gethostname(), "state": "running"}
        found: list[dict[str, Any]] = [machine | {"gpus": gpus}]
        for pod in self.pods.values():
            own = self.places(pod.name)
            entry = {"name": pod.name, "role": "pod", "address": pod.address, "state": pod.phase.lower()}
            found.append(entry | {"gpus": [gpu for gpu in gpus if gpu["index"] in own]})
        return found

    def about(self) -> str:
        """How many GPUs there are, or why there are none."""
        return self.cards.missing() or f"GPUs: {len(self.cards.all())}"

    def application(self) -> web.Application:
        """The HTTP application around it."""

        async def get_gpus(_: web.Request) -> web.Response:
            return web.json_response({self.settings.name: await asyncio.to_thread(self.telemetry)})

        app = super().application()
        app.add_routes([web.get("/v1/gpus", get_gpus)])
        return app
