"""Whether this user may have namespaces on this machine."""

import functools
import subprocess
import sys

from support.settings import ROOT


@functools.cache
def missing() -> str | None:
    """Why this user cannot have namespaces here, in words for a skip or a doctor's table; None when he can."""
    probe = [sys.executable, "-m", "agents.core.namespaces"]
    try:
        result = subprocess.run(probe, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return "namespaces were not made within 10 seconds"
    return None if result.returncode == 0 else (result.stderr.strip() or "no namespaces").splitlines()[-1]
