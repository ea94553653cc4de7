"""Who the victims of a fault are right now; :mod:`support.faults.victims` has what they may be called."""

from collections.abc import Collection, Sequence

from support.amounts import amount
from support.contract.deployment import Node
from support.errors import Inconclusive
from support.faults import victims
from support.faults.victims import Victim
from support.observe.workers import ENDPOINT, try_scrape
from support.world.members import EtcdMembers
from support.world.stage import Stage


class Victims:
    """Finds the nodes that a victim stands for."""

    def __init__(self, stage: Stage, members: EtcdMembers) -> None:
        self._stage, self._members = stage, members

    def find(self, victim: Victim, but: Collection[Node] = ()) -> list[Node]:
        """The nodes, at least one.

        Args:
            but: none of these.

        Raises:
            Inconclusive: there are none right now.
        """
        match victim:
            case victims.Exactly(node, others):
                return [node, *others]
            case victims.Serving(roles):
                role = self._free(roles, but)[0].role if roles else ""
                return [self._stage.fleet.serving_worker(role, but=but)]
            case victims.AnyWorker(idle):
                return self._running(self._idle_workers() if idle else self._stage.deployment.workers, "worker", but)
            case victims.First(role):
                return self._running(self._free([role], but), role, but)
            case victims.IdleFrontend():
                return self._spared([self._idle_frontend()], but)
            case victims.All(roles):
                return self._spared([node for role in roles for node in self._stage.nodes(role)], but)
            case victims.Members(part):
                return self._spared(self._members.pick(part), but)
        raise RuntimeError(f"there is no way to find {victim}")

    def _free(self, roles: Collection[str], but: Collection[Node]) -> list[Node]:
        nodes = [node for node in self._stage.deployment.nodes if node.role in roles]
        free = [node for node in nodes if node not in but]
        if not free:
            others = f", but {len(nodes)} that other failures hit" if nodes else ""
            raise Inconclusive(f"the deployment has no node with role {' or '.join(roles)} to hit{others}")
        return free

    def _running(self, nodes: Sequence[Node], what: str, but: Collection[Node]) -> list[Node]:
        """The first of them that runs, and that no other failure hits."""
        running = [node for node in nodes if self._stage.deployment.life(node).state == "running" and node not in but]
        if not running:
            raise Inconclusive(f"no {what} runs, so none can break")
        return running[:1]

    @staticmethod
    def _spared(nodes: list[Node], but: Collection[Node]) -> list[Node]:
        """The nodes, none of which another failure hits."""
        if taken := [node.name for node in nodes if node in but]:
            raise Inconclusive(f"another failure hits {', '.join(taken)} already")
        return nodes

    def _idle_workers(self) -> list[Node]:
        name = self._stage.release.metrics["worker_inflight"]
        workers = self._stage.deployment.workers
        pages = {node: page for node in workers if (page := try_scrape(node)) is not None}
        idle = [node for node, page in pages.items() if not page.value(name, dynamo_endpoint=ENDPOINT)]
        if not idle:
            raise Inconclusive(f"of {amount(len(workers), 'worker')} none is idle")
        return idle

    def _idle_frontend(self) -> Node:
        nodes = self._stage.nodes("frontend")
        page = try_scrape(nodes[-1])
        busy = page.value(self._stage.release.metrics["frontend_inflight"]) if page else None
        if len(nodes) < 2 or page is None or busy:
            raise Inconclusive(f"of {amount(len(nodes), 'frontend')} none is idle")
        return nodes[-1]
