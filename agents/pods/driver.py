"""Faults of kind ``process`` of a container: signals to its processes, through pidfds, from outside of it.

The first process of a container ignores signals from inside that it does not handle (pid_namespaces(7)), so ``kill``
in there does nothing; SIGKILL and SIGSTOP from the machine reach it. The kubelet starts a container again, as the
restart policy of the pod says.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from agents.core.faults import Driver, Fault, Plan, Problem, Type
from agents.core.kernel import is_stopped, signal_process
from agents.host.pods import Pod
from agents.pods.machine import container_of, processes_of

SIGNAL_SECONDS = 5.0
"""Signals act at once; only a process in uninterruptible sleep takes longer."""
LOOK_SECONDS = 0.005
STARTED_AGAIN = "the pod's restart policy decides whether it is started again"


class PodProcessDriver(Driver):
    """Signals to the processes of a container.

    Args:
        pods: those on this machine, by name, as known right now.
    """

    kind = "process"
    types = (
        Type("crash", f"SIGKILL to all processes of {{}}; {STARTED_AGAIN}"),
        Type(
            "terminate",
            f"SIGTERM to the first process of {{}}; SIGKILL at the end to whatever is left; {STARTED_AGAIN}",
        ),
        Type("hang", "SIGSTOP to all processes of {}; SIGCONT at the end"),
    )

    def __init__(self, pods: Callable[[], Mapping[str, Pod]]) -> None:
        self._pods = pods

    def plan(self, body: dict[str, Any]) -> Plan:
        """See :class:`agents.core.faults.Driver`; ``target``: ``NAMESPACE/POD`` or ``NAMESPACE/POD/CONTAINER``."""
        kind, target = str(body["type"]), str(body.get("target", ""))
        pod, container = container_of(self._pods(), target)
        found = processes_of(container)
        if not found:
            raise Problem(409, "Not running", f"{target!r} has no process on this machine")
        what = f"{target} (container {container[:12]}, processes: {len(found)}, the first of them pid {found[0][0]})"
        [how] = [each.how for each in self.types if each.name == kind]
        undo = {"container": container, "first": list(found[0])}
        keys = [f"container {container}"]
        return Plan("process", kind, [pod.name], [how.format(what)], undo, conflicts=keys, momentary=kind == "crash")

    async def snapshot(self, fault: Fault) -> dict[str, Any]:
        """See :class:`agents.core.faults.Driver`."""
        found = processes_of(fault.undo["container"])
        state = "gone" if not found else "stopped" if any(is_stopped(pid) for pid, _ in found) else "running"
        return {"container": state}

    async def apply(self, fault: Fault) -> None:
        """See :class:`agents.core.faults.Driver`."""
        container, first = fault.undo["container"], tuple(fault.undo["first"])
        number = {"crash": signal.SIGKILL, "terminate": signal.SIGTERM, "hang": signal.SIGSTOP}[fault.type]
        members = processes_of(container)
        fault.evidence |= {"pid": first[0], "pids": [pid for pid, _ in members], "signal": number.name}
        fault.evidence["sent_at"] = time.monotonic()
        if first not in members:
            raise Problem(409, "Not running", f"the first process of {fault.targets[0]!r} is gone")
        if fault.type == "terminate":  # to it alone, as the kubelet does
            signal_process(*first, number)
        else:
            await self._bring(container, number)
            fault.evidence["shown_at"] = time.monotonic()

    async def undo(self, fault: Fault) -> None:
        """See :class:`agents.core.faults.Driver`; of what was started since nothing is touched."""
        container, first = fault.undo["container"], tuple(fault.undo["first"])
        if fault.type == "hang":
            await self._bring(container, signal.SIGCONT)
        if fault.type == "terminate" and first in processes_of(container):
            await self._bring(container, signal.SIGKILL)

    async def _bring(self, container: str, number: signal.Signals) -> None:
        """Signal all processes of a container, also those that they start meanwhile, until the kernel shows it.

        Raises:
            Problem: 500, it does not.
        """
        deadline = time.monotonic() + SIGNAL_SECONDS
        while left := [each for each in processes_of(container) if not _shows(each[0], number)]:
            if time.monotonic() > deadline:
                raise Problem(500, "No effect", f"{number.name} has no effect on pid {left[0][0]}")
            for each in left:
                signal_process(*each, number)
            await asyncio.sleep(LOOK_SECONDS)

    def differences(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """See :class:`agents.core.faults.Driver`; a container that is gone is the kubelet's."""
        was, now = before.get("container"), after.get("container")
        return [] if now in (was, "gone") else [f"the container was {was} and is {now}"]

    def capabilities(self) -> dict[str, dict[str, Any]]:
        """See :class:`agents.core.faults.Driver`."""
        detail = {each.name: each.how.format("a container") for each in self.types}
        return {f"process.{name}": {"available": True, "detail": how} for name, how in detail.items()}


def _shows(pid: int, number: signal.Signals) -> bool:
    """Whether a process that is there yet shows that a signal has reached it."""
    if number == signal.SIGSTOP:
        return is_stopped(pid)
    return number == signal.SIGCONT and not is_stopped(pid)
