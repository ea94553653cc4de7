"""Who sees what has become of hosts in memory: looks at them, never at the faults that were ordered."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.contract.deployment import Life, Node
from support.contract.target import NoPods
from support.targets.fake.faults import FaultServer, Gpu
from support.targets.fake.hosts import Host
from support.targets.fake.network import WIRE_SECONDS, FakeNetwork


class FakeWitness(NoPods):
    """Implements :class:`support.contract.target.Witness`."""

    def __init__(self, hosts: dict[str, Host], network: FakeNetwork, server: FaultServer) -> None:
        self._hosts, self._network, self._server = hosts, network, server

    def state(self, life: Life) -> str:
        """See :class:`support.contract.target.Witness`."""
        return self._hosts[life.node].state_of(life.identity)

    def lost_between(self, peer: Node, victim: Node, packets: int = 1) -> dict[str, int]:
        """See :class:`support.contract.target.Witness`."""
        return {"to": self._lost(peer, victim, packets), "from": self._lost(victim, peer, packets)}

    def _lost(self, sender: Node, receiver: Node, packets: int) -> int:
        if self._network.blocked(sender.name, receiver.name):
            return packets
        return round(packets * self._network.strength(sender.name, receiver.name, "loss") / 100)

    def connects(self, source: Node, destination: Node) -> dict[str, str]:
        """See :class:`support.contract.target.Witness`; there is no IPv6 in memory."""
        return {"IPv4": self._connects(source, destination)}

    def _connects(self, source: Node, destination: Node) -> str:
        met = {
            self._network.blocked(source.name, destination.name),
            self._network.blocked(destination.name, source.name),
        }
        if "drop" in met:
            return "silent"
        program = self._hosts[destination.name].program
        return "refused" if met != {""} or program is None or not program.listening else "open"

    def line(self, source: Node, destination: Node, timeout: float) -> "FakeLine":
        """See :class:`support.contract.target.Witness`."""
        return FakeLine(self._network, source.name, destination.name)

    @contextmanager
    def kernel_log(self, node: Node) -> Iterator["Log"]:
        """See :class:`support.contract.target.Witness`."""
        yield Log(self._server.gpus)

    def telemetry(self, node: Node) -> dict[str, Any]:
        """See :class:`support.contract.target.Witness`."""
        return self._server.gpu(node.name).telemetry()


class FakeLine:
    """Implements :class:`support.contract.target.Line`."""

    def __init__(self, network: FakeNetwork, source: str, target: str) -> None:
        self._network, self._source, self._target = network, source, target

    def __enter__(self) -> "FakeLine":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    def seconds(self, size: int, timeout: float) -> float | None:
        """See :class:`support.contract.target.Line`."""
        rate = self._network.strength(self._source, self._target, "bandwidth")
        took = WIRE_SECONDS + (size * 8 / (rate * 1000) if rate else 0.0)
        self._network.clock.sleep(min(took, timeout))
        return took if took <= timeout else None


class Log:
    """Implements :class:`support.contract.target.KernelLog`."""

    def __init__(self, gpus: dict[str, Gpu]) -> None:
        self._gpus = gpus
        self._before = {gpu.pci: len(gpu.errors) for gpu in gpus.values()}

    def xids(self, pci: str) -> list[int]:
        """See :class:`support.contract.target.KernelLog`."""
        return [n for gpu in self._gpus.values() if gpu.pci == pci for n in gpu.errors[self._before.get(pci, 0) :]]
