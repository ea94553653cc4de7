"""What becomes of the pods of a deployment, as the cluster shows it."""

from collections.abc import Sequence

from support.clock import now
from support.errors import Inconclusive, Since
from support.faults.fault import ProvenFault
from support.faults.pods import UNROUTED_SECONDS
from support.observe.waiting import prove, until
from support.seen import ProcessThere
from support.world.faults import Faults
from support.world.stage import Stage


class PodLives:
    """Looks at the pods that faults have hit."""

    def __init__(self, stage: Stage, faults: Faults) -> None:
        self._stage, self._faults = stage, faults

    def _last(self) -> ProvenFault:
        return self._faults.last_of("pod")

    def expect_gone(self, timeout: float) -> None:
        """The process of the pod that was deleted last has ended ``timeout`` seconds after that, and the cluster has
        forgotten the pod: it has another UID or none, and no Service leads to it.

        Raises:
            AssertionError: the process is there.
            Inconclusive: it is not, and the cluster keeps the pod.
        """
        fault = self._last()
        life, node, since = fault.life, fault.node, Since(fault.injected_at, "its deletion")
        assert life is not None
        witness = self._stage.target.witness

        def there() -> Sequence[ProcessThere] | None:
            state = witness.state(life)
            return None if state == "gone" else [ProcessThere(node.name, node.role, state, now() - since.at)]

        until(there, timeout, f"the process of {node.name} has ended", since)

        def kept() -> str | None:
            pod = witness.pod(life)
            return str(pod) if pod.there or pod.routed else None

        at = prove(kept, UNROUTED_SECONDS, f"the pod of {node.name} is gone", "the cluster kept a pod that has ended")
        self._stage.events.add("proof", node.name, f"{life.words} has ended; {witness.pod(life)}", at=at)

    def see_same(self) -> None:
        """What runs in the place of the container that was hit last is another container of the very same pod.

        Raises:
            Inconclusive: it is not.
        """
        fault = self._faults.last
        if fault.life is None:
            raise Inconclusive(f"{fault.kind} of {fault.node.name} has hit no container")
        life, pod = self._stage.deployment.life(fault.node), self._stage.target.witness.pod(fault.life)
        if life == fault.life or not pod.there:
            raise Inconclusive(f"{fault.life.words} was hit and {life.words} runs in its place; {pod}")
        text = f"{life.words} runs in the place of {fault.life.words}; {pod}"
        self._stage.events.add("proof", fault.node.name, text)
