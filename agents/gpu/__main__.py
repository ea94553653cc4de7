"""Command line of the GPU agent: ``python -m agents.gpu --state-dir DIR``, see :mod:`agents.host.command`."""

import argparse
from collections.abc import Sequence
from typing import Any

import pynvml

from agents.gpu.agent import GpuAgent
from agents.gpu.real_gpu import LOAD
from agents.host import command
from agents.host.agent import HostSettings
from agents.host.pods import Api
from agents.watchdog.watchdog import PROGRAM


def parser() -> argparse.ArgumentParser:
    """Its options."""
    found = command.parser("agents.gpu", "Faults of this machine's NVIDIA GPUs.", 8081)
    found.add_argument(
        "--allow-clock-control", action="store_true", help="let THROTTLE and OVERHEAT set clocks and power"
    )
    return found


def main(
    argv: Sequence[str] | None = None,
    nvml: Any = pynvml,
    load: Sequence[str] = LOAD,
    program: Sequence[str] = PROGRAM,
) -> None:
    """Entry point; ``nvml`` and ``load`` as for :class:`GpuAgent`, the rest as for :func:`agents.host.command.run`."""

    def make(settings: HostSettings, options: argparse.Namespace, api: Api | None) -> GpuAgent:
        return GpuAgent(settings, options.allow_clock_control, nvml, load, None if options.recover else api)

    command.run(parser(), argv, program, make)


if __name__ == "__main__":
    main()
