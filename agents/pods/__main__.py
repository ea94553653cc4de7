"""Command line of the pod agent: ``python -m agents.pods --state-dir DIR``, see :mod:`agents.host.command`."""

import argparse
from collections.abc import Sequence

from agents.host import command
from agents.host.agent import HostSettings
from agents.host.pods import Api
from agents.pods.agent import PodAgent

PROGRAM = ("agents.pods",)


def parser() -> argparse.ArgumentParser:
    """Its options."""
    return command.parser("agents.pods", "Faults of the processes and the network of pods on this machine.", 8082)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; see :func:`agents.host.command.run`."""

    def make(settings: HostSettings, _: argparse.Namespace, api: Api | None) -> PodAgent:
        return PodAgent(settings, api)

    command.run(parser(), argv, PROGRAM, make)


if __name__ == "__main__":
    main()
