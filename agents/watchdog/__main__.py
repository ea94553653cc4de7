"""Command line of the watchdog: ``python -m agents.watchdog --state-dir DIR [--program MODULE]``."""

import argparse
import sys
from pathlib import Path

from agents.watchdog.guard import private
from agents.watchdog.watchdog import PROGRAM, Watchdog


def main() -> int:
    """Entry point; see :meth:`Watchdog.run`."""
    parser = argparse.ArgumentParser(prog="python -m agents.watchdog")
    parser.add_argument("--state-dir", type=Path, required=True, help="folder where agents leave their guards")
    parser.add_argument("--program", default=" ".join(PROGRAM), help="the module that undoes, as after `python -m`")
    options = parser.parse_args()
    state_dir = options.state_dir.resolve()
    command = [sys.executable, "-m", *options.program.split(), "--recover", f"--state-dir={state_dir}"]
    try:
        private(state_dir)
    except OSError as error:
        parser.error(f"--state-dir {state_dir}: {error.strerror}; expected the --state-dir of an agent")
    return Watchdog(state_dir, lambda _: command).run()


if __name__ == "__main__":
    sys.exit(main())
