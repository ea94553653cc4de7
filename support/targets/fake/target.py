"""A target in memory, for sentences and for the suite itself: a correct Dynamo, simulated on a clock of its own.

What it is for: every step, nearly every fault and the judge run on it in seconds, with no Dynamo, no etcd, no namespace
and no wait (``-D target=fake``). Outside of this room nothing but the list of targets knows of it.

- **Time** (``clock.py``): one thread runs at a time, and the clock goes on to the next deadline when all wait.
- **The network** (``network.py``): clients' connections come to it through the event loop of the one streaming reader,
  control calls through :mod:`support.asking`; so the client, its parser and the ledger are the real ones. Rules of
  faults hold packets back, refuse, reset, lose or slow them.
- **Hosts** (``hosts.py``): a program each, with lives, restart policy and fences. What a program does are tasks on that
  one loop, which end with it, and rest while it is stopped.
- **Dynamo** (``frontend.py``, ``worker.py``, ``members.py``, ``streams.py``) and **etcd** (``etcd.py``) behave as their
  promises say, not as a release does: records of known defects do not count here.
- **Faults** (``faults.py``) answer the fault service's API; the **witness** (``witness.py``) looks at the victims.

``FT_SABOTAGE=answers=KIND`` has the workers lie, ``faults=KIND`` the fault service, ``router=KIND`` the frontend.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from support import asking, clock
from support.contract.deployment import Deployment
from support.contract.fault_service import FaultService
from support.contract.shape import Shape
from support.contract.target import Injectors, Wait, Witness
from support.errors import SuiteError
from support.events import EventLog
from support.releases import Release
from support.requests.reader import shared_reader
from support.targets.fake import faults
from support.targets.fake.clock import VirtualClock, VirtualLoop
from support.targets.fake.deployment import FakeDeployment
from support.targets.fake.hosts import Host
from support.targets.fake.network import FakeNetwork
from support.targets.fake.witness import FakeWitness

_clock: VirtualClock | None = None


def begin() -> None:
    """Have this process live on a clock in memory from now on."""
    global _clock
    if _clock is None:
        _clock = VirtualClock()
        clock.use(_clock)


class FakeInjectors:
    """Implements :class:`support.contract.target.Injectors`; in memory there is nothing to kill: others are there at
    once, and faults end all the same.
    """

    def kill(self) -> Iterator[str]:
        """See :class:`support.contract.target.Injectors`."""
        yield "the fault service in memory"

    def freeze(self) -> tuple[str, Callable[[], str | None]]:
        """See :class:`support.contract.target.Injectors`."""
        return "the fault service in memory", lambda: None

    def pids(self) -> dict[str, int]:
        """See :class:`support.contract.target.Injectors`."""
        return {"behave": os.getpid()}


class _NoWaits:
    def close(self) -> list[Wait]:
        """Time waits for everybody."""
        return []


class FakeTarget:
    """Implements :class:`support.contract.target.Target`."""

    def __init__(self, release: Release, folder: Path, events: EventLog) -> None:
        assert _clock is not None, "this process lives on the machine's clock; begin() comes first"
        loop = shared_reader().loop
        if not isinstance(loop, VirtualLoop):
            raise SuiteError(
                "the target fake was chosen after this process had sent a request by the machine's clock; "
                "deploy before the first request"
            )
        self._release, self._logs, self._events = release, folder / "logs", events
        self._logs.mkdir(parents=True, exist_ok=True)
        self._network = FakeNetwork(_clock, loop)
        self._hosts: dict[str, Host] = {}
        loop.connect = self._network.connect
        asking.carry_by(self._network.carry)
        server = faults.FaultServer(self._hosts, self._network)
        self._network.servers[faults.ADDRESS, faults.PORT] = server
        self.service = FaultService(f"http://{faults.ADDRESS}:{faults.PORT}")
        self.injectors: Injectors = FakeInjectors()
        self.witness: Witness = FakeWitness(self._hosts, self._network, server)

    def deploy(self, shape: Shape, watch: Callable[[Deployment], None] = lambda _: None) -> FakeDeployment:
        """See :class:`support.contract.target.Target`."""
        shape.check(self._release)
        made = FakeDeployment(shape, self._release, self._logs, self._events, self._network, self._hosts, watch)
        try:
            made.start()
        except BaseException:
            made.remove()
            raise
        return made

    def watch_waits(self, file: Path) -> _NoWaits:
        """See :class:`support.contract.target.Target`."""
        return _NoWaits()
