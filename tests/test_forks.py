"""Programs that are forks: how they end, and that none goes on as the process that made it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.settings import ROOT

# Forks a program, says who came back from that, and ends as the program has ended.
SCRIPT = """
import os, sys
from pathlib import Path
from agents.core.forks import close_all_but, fork, run_module, use_files

def program():
    {program}

try:
    pid = fork(program)
finally:  # as the launcher does, which takes an OSError for a start that has failed
    with open(sys.argv[1], "a") as stream:
        stream.write("back ")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def ended(tmp_path: Path, program: str, shell: str = '"$@"') -> tuple[int, str]:
    """Status of the program, and what the script and it have written."""
    told = tmp_path / "told"
    argv = ["bash", "-c", shell, "bash", sys.executable, "-c", SCRIPT.format(program=program), str(told)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert told.read_text() == "back ", "the fork went on as the one that made it"
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        ("return 3", 3, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(4)", 4, ""),
        ("sys.exit('no')", 1, "no"),
        ("raise ValueError('odd')", 1, "ValueError: odd"),
        ("print('said'); return 0", 0, "said"),
        ("use_files(None, None); print('said'); return 0", 0, "said"),
        ("return run_module('http', [])", 1, "No module named http.__main__"),
        ("os.kill(os.getpid(), 9)", -9 % 256, ""),
    ],
)
def test_a_fork_ends_as_a_program_of_its_own_would(tmp_path: Path, program: str, status: int, said: str) -> None:
    seen, output = ended(tmp_path, program)
    assert (seen, said in output) == (status, True), output


def test_a_fork_whose_output_nobody_reads_ends_all_the_same(tmp_path: Path) -> None:
    status, _ = ended(tmp_path, "print('said'); return 0", shell='"$@" | true; exit ${PIPESTATUS[0]}')
    assert status == 120


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-"])
def test_a_fork_lives_without_a_standard_file(tmp_path: Path, closed: str) -> None:
    status, output = ended(tmp_path, "use_files(None, None); return 5", shell=f'"$@" {closed}')
    assert status == 5, output


def test_signals_are_taken_again_and_files_are_closed(tmp_path: Path) -> None:
    program = "import signal; fd = os.dup(2); close_all_but([]); "
    program += "return 7 + 2 * Path(f'/proc/self/fd/{fd}').exists() + (signal.getsignal(15) is signal.SIG_IGN)"
    assert ended(tmp_path, program, shell="trap '' TERM; \"$@\"")[0] == 7
