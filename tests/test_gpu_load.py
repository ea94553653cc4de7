"""The load on a GPU calls the CUDA driver with the types of its header, and says what the driver says."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agents.gpu.load import CHUNK_BYTES, Cuda, CudaError
from support.settings import ROOT

LEASE = 4.0  # seconds: long enough to begin, on a machine with other work


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a libcuda.so.1 that is compiled C, so that a wrong type of an argument is a wrong argument."""
    if not shutil.which("cc"):
        pytest.skip("compiling a stand-in for the driver wants the command cc, which is not here")
    folder = tmp_path_factory.mktemp("driver")
    source = ROOT / "tests" / "data" / "libcuda.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", source], check=True)
    return folder


def load(driver: Path, kind: str, seconds: float) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "agents.gpu.load", kind, "--share=0.5", f"--parent={os.getpid()}"]
    env = os.environ | {"LD_LIBRARY_PATH": str(driver)}
    late = [*argv, f"--until={time.monotonic() + seconds}"]
    return subprocess.run(late, cwd=ROOT, env=env, capture_output=True, text=True, timeout=20)


def test_memory_is_taken_piece_by_piece_and_each_piece_given_back(driver: Path) -> None:
    done = load(driver, "memory", LEASE)
    word = json.loads(done.stdout)
    assert (done.returncode, word) == (0, {"bytes": 3 * CHUNK_BYTES, "wanted": int(70.5 * CHUNK_BYTES)})
    taken = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("alloc")]
    freed = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("free")]
    assert taken == freed != []


def test_the_kernel_is_launched(driver: Path) -> None:
    done = load(driver, "compute", LEASE)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"bytes": 0})
    assert done.stderr == "launched\n"


def test_without_a_driver_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("no library")
    done = load(tmp_path, "memory", LEASE)
    assert (done.returncode, "no CUDA driver" in json.loads(done.stdout)["missing"]) == (1, True)


def test_an_error_has_the_drivers_own_name(driver: Path) -> None:
    library: Any = ctypes.CDLL(str(driver / "libcuda.so.1"))
    cuda = Cuda(library)
    with pytest.raises(CudaError, match="cuInit: CUDA_ERROR_INVALID_VALUE") as error:
        cuda("cuInit", 1)
    assert error.value.code == 1
    with pytest.raises(CudaError, match="cuDeviceGet: CUresult 101"):
        cuda("cuDeviceGet", ctypes.byref(ctypes.c_int()), 9)
