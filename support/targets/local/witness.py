"""What this machine's kernel shows of nodes, asked independently of the node agent that starts and breaks them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from support.contract.deployment import Life, Node
from support.contract.target import NoPods
from support.observe.waiting import at_once
from support.targets.local import network, process
from support.targets.local.agent import Agent
from support.targets.local.kernel_log import LocalKernelLog


class LocalWitness(NoPods):
    """Sees the nodes of this cell; implements :class:`support.contract.target.Witness`.

    Args:
        agent: has the telemetry of simulated GPUs, which nobody else can see.
        own: the mark of this cell in the environment of all that runs on its nodes.
    """

    def __init__(self, agent: Agent, own: str) -> None:
        self._agent, self._own = agent, own

    def state(self, life: Life) -> str:
        """As the kernel shows that very process and all that it has started."""
        return process.state_of(life, self._own)

    def lost_between(self, peer: Node, victim: Node, packets: int = 1) -> dict[str, int]:
        """UDP packets between their network namespaces, all ways at once."""
        return network.lost_between(peer, victim, packets)

    def connects(self, source: Node, destination: Node) -> dict[str, str]:
        """From the node's network namespace."""
        addresses = {"IPv4": destination.address, "IPv6": network.own_ipv6(destination.name)}
        looks = {name: each for name, each in addresses.items() if each is not None}
        met = at_once(*(partial(network.connects, source.name, each, destination.port) for each in looks.values()))
        return dict(zip(looks, met, strict=True))

    def line(self, source: Node, destination: Node, timeout: float) -> network.LocalLine:
        """Between the two network namespaces."""
        return network.LocalLine(source.name, destination.name, destination.address, timeout)

    @contextmanager
    def kernel_log(self, node: Node) -> Iterator[LocalKernelLog]:
        """All nodes are on one machine, whose log this is."""
        log = LocalKernelLog()
        try:
            yield log
        finally:
            log.close()

    def telemetry(self, node: Node) -> dict[str, Any]:
        """Of the node's simulated GPU."""
        return self._agent.gpus()[node.name][0]
