"""A deployment that stays: its record outlives `make clean`. What is asked of it tries tests/test_docs.py."""

import shutil
import subprocess
from pathlib import Path

from support.settings import ROOT


def test_clean_leaves_the_record_of_what_is_up(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("up/cell.json", "runs/1/verdicts.json", "costs-local.json"):
        (tmp_path / "reports" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "reports" / name).touch()
    for _ in range(2):
        subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
        left = [str(path.relative_to(tmp_path)) for path in (tmp_path / "reports").rglob("*")]
        assert sorted(left) == ["reports/up", "reports/up/cell.json"]
