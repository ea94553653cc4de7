"""The building blocks by the names that users of Dynamo's own tests know, for those who write Python.

::

    from support.api import judge, kill_worker, spawn_long_request, start_deployment

    deployment = start_deployment(engine="ruler", workers=2)
    request = spawn_long_request(max_tokens=1000)
    request.wait_tokens(10, timeout=30)
    kill_worker(deployment.workers[0])
    answer = request.join()
    print(answer.status_code, len(answer.tokens), judge())

``python -m support.run.cells my_script.py`` gives the script a cell as behave has one; started plainly it makes its
nodes on loopback addresses. Either way everything ends with the script.
"""

import atexit
import tempfile
from pathlib import Path
from typing import Any

from support import targets
from support.contract.deployment import Deployment, Node
from support.faults.fault import Fault, ProvenFault
from support.faults.registry import named
from support.faults.victims import Exactly
from support.judge.judge import judge_scenario
from support.judge.verdict import Finding
from support.requests.client import Pending
from support.run import cells
from support.settings import ROOT, Settings
from support.world.world import World

_worlds: list[World] = []


def start_deployment(folder: Path | None = None, **shape: Any) -> Deployment:
    """Start a Dynamo deployment and wait until it serves.

    Args:
        folder: where logs, ledger and metrics go; a new one below ``reports/python`` if None.
        shape: fields of :class:`support.contract.shape.Shape`, such as ``engine="vllm"``, ``workers=2``,
        ``migration_limit=3``.

    Raises:
        RuntimeError: this program already has a deployment; :func:`judge` ends it.
        ValueError, Unsupported, DeploymentFailed: see :class:`support.contract.target.Target`.
    """
    if _worlds:
        raise RuntimeError("this program already has a deployment; end it with judge() before the next one")
    settings = Settings.load()
    kind = targets.kind(settings)
    if kind.in_cells:
        cells.join()
    kind.begin()
    if folder is None:
        parent = ROOT / "reports" / "python"
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=parent))
    world = World(settings, folder)
    deployment = world.deploy(**shape)
    _worlds.append(world)
    atexit.register(lambda: world in _worlds and judge())
    return deployment


def world() -> World:
    """The world of this program's deployment, by its parts: stage, clients, answers, faults, workload.

    Raises:
        RuntimeError: there is no deployment.
    """
    if not _worlds:
        raise RuntimeError("there is no deployment; call start_deployment() first")
    return _worlds[-1]


def spawn_long_request(max_tokens: int = 1000, **options: Any) -> Pending:
    """Send a streamed request and come back at once; ``join()`` gives an answer with ``status_code``, ``tokens`` and
    ``entry``.

    Args:
        max_tokens: how many tokens to ask for.
        options: those of :meth:`support.world.clients.Clients.send`, such as ``api="chat"``, ``stream=False``,
            ``usage=True``.
    """
    return world().clients.send(max_tokens=max_tokens, **options)


def kill_worker(worker: Node, how: str = "crash") -> ProvenFault:
    """Break a worker and return once the fault is proven, whether or not somebody is there to notice.

    Args:
        worker: one of ``deployment.workers``.
        how: ``crash`` (SIGKILL), ``terminate`` (SIGTERM), ``hang`` (SIGSTOP), ``restart``, or another name of a kind
            (:mod:`support.faults.registry`).

    Raises:
        Inconclusive: the fault could not be proven.
    """
    return strike(named(how)(Exactly(worker, felt=False)))[0]


def strike(fault: Fault) -> list[ProvenFault]:
    """Order a fault of any kind and return once it is proven; see :meth:`support.world.faults.Faults.strike`.

    ::

        strike(Loss(Exactly(deployment.workers[0]), percent=40, lease_seconds=3))
    """
    return world().faults.strike(fault)


def judge() -> list[Finding]:
    """End all requests, take the deployment down and say what is wrong with what was seen; [] when nothing is."""
    history = world().close(give_up=False)
    _worlds.clear()
    return judge_scenario(history, None)
