"""Who the victims of a fault are right now; :mod:`support.faults.victims` has what they may be called."""

from collections.abc import Collection, Sequence

from support.amounts import amount
from support.contract.deployment import Node
from support.errors import Inconclusive
from support.faults import victims
from support.faults.victims import Victim
from support.observe.workers import try_scrape
from support.world.members import EtcdMembers
from support.world.stage import Stage


class Victims:
    """Finds the nodes that a victim stands for."""

    def __init__(self, stage: Stage, members: EtcdMembers) -> None:
        self._stage, self._members = stage, members

    def find(self, victim: Victim, of: Sequence[Node] = (), but: Collection[Node] = ()) -> list[Node]:
        """The nodes, at least one.

        Args:
            of: nodes of a fault, for a victim that is relative to them.
            but: none of these; of a victim that is chosen by its role.

        Raises:
            Inconclusive: there are none right now.
        """
        match victim:
            case victims.Exactly(node):
                return [node]
            case victims.Serving(role):
                return [self._stage.fleet.serving_worker(role)]
            case victims.Busiest(roles):
                return [self._stage.fleet.serving_worker(self._free(roles, but)[0].role, but=but)]
            case victims.First(role):
                return self._free([role], but)[:1]
            case victims.FirstRunning(role):
                return self._running(role)[:1]
            case victims.IdleFrontend():
                return [self._idle_frontend()]
            case victims.All(role):
                return self._stage.nodes(role)
            case victims.Members(part):
                return self._members.pick(part)
            case victims.Others(who):
                return self._others(who, of)
        raise RuntimeError(f"there is no way to find {victim}")

    def _free(self, roles: Collection[str], but: Collection[Node]) -> list[Node]:
        nodes = [node for node in self._stage.deployment.nodes if node.role in roles]
        free = [node for node in nodes if node not in but]
        if not free:
            others = f", but {len(nodes)} that other failures hit" if nodes else ""
            raise Inconclusive(f"the deployment has no node with role {' or '.join(roles)} to hit{others}")
        return free

    def _running(self, role: str) -> list[Node]:
        nodes = self._stage.nodes(role)
        running = [node for node in nodes if self._stage.deployment.life(node).state == "running"]
        if not running:
            raise Inconclusive(f"no {role} runs, so none can break")
        return running

    def _idle_frontend(self) -> Node:
        nodes = self._stage.nodes("frontend")
        page = try_scrape(nodes[-1])
        busy = page.value(self._stage.release.metrics["frontend_inflight"]) if page else None
        if len(nodes) < 2 or page is None or busy:
            raise Inconclusive(f"of {amount(len(nodes), 'frontend')} none is idle")
        return nodes[-1]

    def _others(self, who: str, of: Sequence[Node]) -> list[Node]:
        names = {node.name for node in of}
        peers = [node for node in self._members.all if node.name not in names]
        dynamo = self._stage.deployment.dynamo
        return {"peers": peers, "dynamo": dynamo, "everybody": [*peers, *dynamo]}[who]
