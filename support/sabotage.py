"""Sabotage: what ``FT_SABOTAGE`` breaks on purpose, for the proof that scenarios can fail (docs/sabotage.md).

What is broken knows nothing of it and is wrapped: deployments and the witness by
:mod:`support.targets.local.sabotage`, deployments and faults of pods by :mod:`support.targets.kubernetes.sabotage`, the
node agent by ``agents.sabotage.injector``, which a cell starts in its place. The ruler, and the target fake, lie by
themselves when they are told to.
"""

import os
from collections.abc import Mapping

KINDS = ("ruler", "migration-limit", "proxy", "injector", "witness", "shape", "answers", "faults", "router", "cluster")


def asked() -> tuple[str, str]:
    """Kind and value of ``FT_SABOTAGE``, both empty where nothing is to be broken.

    Raises:
        ValueError: there is no such kind.
    """
    kind, _, value = os.environ.get("FT_SABOTAGE", "").partition("=")
    if kind not in ("", *KINDS):
        raise ValueError(
            f"FT_SABOTAGE is {kind!r}; expected migration-limit=N, or KIND for one of "
            f"{', '.join(f'{each}=' for each in KINDS if each != 'migration-limit')}"
        )
    return kind, value


def node_agent(environ: Mapping[str, str]) -> str | None:
    """Module of the node agent that lies, for a cell whose environment wants one."""
    return "agents.sabotage.injector" if environ.get("FT_SABOTAGE", "").startswith("injector=") else None
