"""The kind of target that memory is."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from support import sabotage
from support.contract.target import Capability, Need, Target
from support.events import EventLog
from support.releases import Release
from support.settings import Settings

FOUND = {
    "namespaces": (Need("network namespaces", "namespaces", "nodes with addresses", "needs.namespaces"), True),
    "nftables": (Need("nftables", "nftables", "cuts and losses between nodes", "needs.nftables"), True),
    "tbf": (Need("tbf", "tbf", "narrow cables between nodes", "needs.tbf"), True),
    "netem": (Need("netem", "netem", "delays between nodes", "needs.netem"), False),
    "kmsg": (Need("the kernel log", "kernel log", "GPU faults as the driver reports them", "needs.kmsg"), True),
    "cgroups": (Need("cgroups", "cgroups", "memory and CPU limits of a node", "needs.cgroups"), False),
    "gpu": (Need("a GPU", "GPU", "real engines", "gpu"), False),
    "cluster": (Need("a Kubernetes cluster", "KUBECONFIG", "the target kubernetes", "k8s"), False),
}
"""Name -> what may be needed, and whether it is simulated here."""


class FakeKind:
    """A simulated Dynamo in memory; implements :class:`support.contract.target.TargetKind`."""

    description = "memory"
    in_cells = False
    real = False
    needs: Mapping[str, Need] = {name: need for name, (need, _) in FOUND.items()}

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def capabilities(self, names: Iterable[str]) -> dict[str, Capability]:
        """See :class:`support.contract.target.TargetKind`."""
        wanted = list(names)
        if unknown := [name for name in wanted if name not in FOUND]:
            raise ValueError(f"there is no capability {unknown[0]!r}; allowed: {', '.join(FOUND)}")
        said = {True: "simulated in memory", False: "not simulated"}
        return {name: Capability(name, FOUND[name][1], said[FOUND[name][1]]) for name in wanted}

    def begin(self) -> None:
        """See :class:`support.contract.target.TargetKind`; from now on the process lives on a clock in memory."""
        from support.targets.fake import target  # not at the top: others have no use for it

        target.begin()

    def make(self, release: Release, folder: Path, events: EventLog) -> Target:
        """See :class:`support.contract.target.TargetKind`.

        Raises:
            ValueError: ``FT_SABOTAGE`` wants what is not simulated here.
        """
        from support.targets.fake.target import FakeTarget

        kind, _ = sabotage.asked()
        if kind not in ("", "answers"):
            raise ValueError(f"FT_SABOTAGE is {kind}=; the target fake knows answers= alone")
        return FakeTarget(release, folder, events)
