"""What frontends and workers in memory have in common: a lease that they live by, and counts that they show."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from support.contract.shape import Shape
from support.targets.fake.etcd import Cluster, FakeLease
from support.targets.fake.hosts import FakeProgram, Host

INSTANCES = "v1/instances/"
DRAIN_SECONDS = 15.0
"""How long one that leaves may finish what it has, where nobody says otherwise."""
NO_LEASE = "Unable to create lease"


class Counts:
    """Counters and gauges by name and labels, as a page for Prometheus."""

    def __init__(self) -> None:
        self._values: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()

    def add(self, name: str, amount: float = 1, labels: Mapping[str, str] | None = None) -> None:
        """Raise, or lower, a count."""
        self._values[name, tuple(sorted((labels or {}).items()))] += amount  # type: ignore[assignment]

    def page(self, common: Mapping[str, str]) -> str:
        """The text; each count carries the ``common`` labels too."""
        lines = []
        for (name, labels), value in self._values.items():
            shown = ",".join(f'{key}="{text}"' for key, text in {**dict(labels), **common}.items())
            lines.append(f"{name}{{{shown}}} {value:g}\n" if shown else f"{name} {value:g}\n")
        return "".join(lines)


class DynamoProcess(FakeProgram):
    """A frontend or a worker: it registers with a lease, and exits in good order when it loses that or is shut down.

    Attributes:
        counts: what its metrics page shows.
        under_way: how many requests it has.
    """

    def __init__(
        self, host: Host, shape: Shape, cluster: Cluster, lease_seconds: float, names: Mapping[str, str]
    ) -> None:
        super().__init__(host)
        self.shape, self.cluster, self.names = shape, cluster, names
        self._lease_seconds = lease_seconds
        self.lease: FakeLease | None = None
        self.counts = Counts()
        self.under_way = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def begin(self) -> None:
        """See :class:`support.targets.fake.hosts.FakeProgram`."""
        super().begin()
        self.do(self._keep_lease())

    async def _keep_lease(self) -> None:
        while self.cluster.member_of(self.name) is None:
            self.host.say(NO_LEASE)
            await self.rest(0.5)
        lease = self.lease = self.cluster.grant(self.name, self._lease_seconds)
        self.register(lease)
        good_until = lease.expires_at
        while not self.leaving:
            await self.rest(min(1.0, self._lease_seconds / 5))
            if lease.number not in self.cluster.leases and self.cluster.member_of(self.name) is not None:
                self.host.say("lease not found")
                self.told()
            elif self.cluster.member_of(self.name) is not None:
                good_until = lease.expires_at = self.now + lease.seconds
            elif self.now >= good_until:
                self.host.say("lease expired")
                self.told()

    def register(self, lease: FakeLease) -> None:
        """Say in etcd what there is."""

    def took(self, amount: int) -> None:
        """This many more or fewer requests are in flight."""
        self.under_way += amount
        if self.under_way:
            self.idle.clear()
        else:
            self.idle.set()

    def told(self) -> None:
        """SIGTERM, or the lease is lost: leave in good order."""
        if not self.leaving:
            self.leaving = True
            self.do(self._leave())

    async def _leave(self) -> None:
        if self.lease is not None and self.cluster.member_of(self.name) is not None:
            self.cluster.withdraw(self.lease)
        await self.finish()
        if self.lease is not None and self.cluster.member_of(self.name) is not None:
            self.cluster.drop(self.lease)
        self.cluster.attached.pop(self.name, None)
        self.host.over(0)

    async def finish(self) -> None:
        """Come to an end with what there is."""

    async def idle_within(self, seconds: float) -> bool:
        """Wait until nothing is in flight; whether that was within a time."""
        try:
            await asyncio.wait_for(self.idle.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """See :class:`support.targets.fake.hosts.FakeProgram`."""
        if path == "/metrics":
            return self.counts.page(self.labels())
        return super().answer(method, path, body)

    def labels(self) -> dict[str, str]:
        """What all of its counts carry."""
        return {}
