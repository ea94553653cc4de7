"""What scenarios may need of a target, by the tags that say so."""

from collections.abc import Collection, Iterable

from support.contract.target import Need

NEEDS = {
    "root": Need("root", "root", "the kernel log and cgroups"),
    "namespaces": Need(
        "network namespaces",
        "namespaces",
        "a cell per scenario, nodes with addresses; else loopback",
        "needs.namespaces",
    ),
    "nftables": Need("nftables", "nftables", "cuts and losses between nodes", "needs.nftables"),
    "tbf": Need("tbf", "tbf", "low bandwidth between nodes", "needs.tbf"),
    "netem": Need("netem", "netem", "delays between nodes", "needs.netem"),
    "kmsg": Need("the kernel log", "kernel log", "GPU faults as the driver reports them", "needs.kmsg"),
    "cgroups": Need("cgroups", "cgroups", "memory and CPU limits of a node", "needs.cgroups"),
    "strain": Need(
        "GPUs that can be slowed or filled", "strained GPUs", "slow GPUs and taken memory, simulated", "needs.strain"
    ),
    "gpu": Need("a GPU", "GPU", "real engines", "gpu"),
    "cluster": Need("a Kubernetes cluster", "KUBECONFIG", "the target kubernetes"),
    "pods": Need("pods", "pods", "what only a cluster can do to them", "k8s", only="kubernetes"),
    "drains": Need(
        "the right to drain a node", "drains", "nodes that are cordoned and drained", "needs.drains", only="kubernetes"
    ),
}
"""Name -> what is needed, in the order of the doctor's table; a kind of target has those that it can answer for."""


def known(names: Iterable[str], needs: Collection[str]) -> list[str]:
    """The names, all of which are among ``needs``.

    Raises:
        ValueError: one is not.
    """
    wanted = list(names)
    if unknown := [name for name in wanted if name not in needs]:
        raise ValueError(f"there is no capability {unknown[0]!r}; allowed: {', '.join(needs)}")
    return wanted
