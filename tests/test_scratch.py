"""Folders for a while: whatever becomes of their maker, they are gone at the latest when the next one is made."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agents.core import scratch
from support.settings import ROOT

MAKER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored by what runs in the background of a shell
from pathlib import Path
from agents.core import scratch
with scratch.folder(Path(sys.argv[1]), "it-") as made:
    (made / "file").touch()
    print(made, flush=True)
    time.sleep(600)
"""


def making(parent: Path) -> tuple["subprocess.Popen[str]", Path]:
    """A process that has a folder, and the folder."""
    process = subprocess.Popen([sys.executable, "-c", MAKER, str(parent)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def test_a_folder_goes_with_its_maker(tmp_path: Path) -> None:
    with scratch.folder(tmp_path / "parent", "it-") as made:
        (made / "below").mkdir()
        assert [each.name.startswith("it-") for each in (tmp_path / "parent").iterdir()] == [True]
    with pytest.raises(BlockingIOError), scratch.folder(tmp_path / "parent", "it-"):
        raise BlockingIOError
    assert list((tmp_path / "parent").iterdir()) == []


def test_that_of_a_killed_maker_goes_with_the_next_one_and_no_other(tmp_path: Path) -> None:
    killed, first = making(tmp_path)
    living, second = making(tmp_path)
    other = tmp_path / "another"
    other.mkdir()
    try:
        killed.kill()
        killed.communicate()
        assert (first / "file").exists()
        with scratch.folder(tmp_path, "it-") as made:
            assert set(tmp_path.iterdir()) == {second, other, made}
    finally:
        living.send_signal(signal.SIGINT)
        living.communicate()
    assert set(tmp_path.iterdir()) == {other}
