"""Ports of this machine that lead to pods; :mod:`support.targets.kubernetes.tunnel` is the program behind each."""

import json
import subprocess
import sys
from collections.abc import Sequence

from support.errors import DeploymentFailed
from support.settings import ROOT
from support.targets.kubernetes.api import ApiServer


class Tunnel:
    """One forwarded port; there from its making until :meth:`close`, or until this process ends.

    Args:
        pods: those that may answer, the first that takes a connection does.
        port: of the pods.

    Attributes:
        url: ``http://127.0.0.1:PORT``.

    Raises:
        DeploymentFailed: no port can be forwarded.
    """

    def __init__(self, cluster: ApiServer, namespace: str, pods: Sequence[str], port: int) -> None:
        told = cluster.access() | {"namespace": namespace, "pods": list(pods), "port": port}
        argv = [sys.executable, "-m", "support.targets.kubernetes.tunnel"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(argv, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline().strip()
        if not line.isdigit():
            self.close()
            raise DeploymentFailed(f"no port could be forwarded to {pods[0]}: {line or 'the tunnel has ended'}")
        self.url = f"http://127.0.0.1:{line}"

    def close(self) -> None:
        """End it."""
        for end in (self._process.stdin, self._process.stdout):
            assert end
            end.close()
        self._process.kill()
        self._process.wait()
