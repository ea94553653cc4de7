"""A machine with GPUs for tests: tests/fake_gpu.py as processes, started, killed and asked."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.settings import ROOT
from tests.plain_http import Client

TOKEN = "s3cret"


class Machine:
    """A machine with fake GPUs, and the agents on it."""

    def __init__(self, folder: Path, token: str = TOKEN) -> None:
        self.token = token
        self.folder, self.state = folder / "gpus", folder / "state"
        self.folder.mkdir()
        self.supervised = True  # by the test
        self.agents: list[subprocess.Popen[str]] = []
        self.client = Client("")

    def environment(self, **more: str) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("FT_", "NODE_NAME"))}
        return own | {"FAKE_GPU": str(self.folder), "FT_AGENT_TOKEN": self.token} | more

    def start(self, *options: str, program: str = "tests.fake_gpu agent", **env: str) -> None:
        options = (*options, "--supervised") if self.supervised else options
        argv = [sys.executable, "-m", *program.split(), "--name=node-a", "--port=0", f"--state-dir={self.state}"]
        env = self.environment(**env)
        agent = subprocess.Popen([*argv, *options], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        self.agents.append(agent)
        assert agent.stdout is not None
        found = re.search(r"http://\S+", agent.stdout.readline())
        assert found, "the agent does not say where it is"
        self.client = Client(found.group())

    def kill(self) -> None:
        self.agents[-1].kill()
        self.agents[-1].wait()

    def recover(self, program: str = "tests.fake_gpu agent", **env: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", *program.split(), "--recover", f"--state-dir={self.state}"]
        return subprocess.run(argv, cwd=ROOT, env=self.environment(**env), capture_output=True, text=True)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        status, content = self.client.ask(method, path, body, self.token)
        return status, json.loads(content) if isinstance(content, str) else content

    def inject(self, kind: str, **body: Any) -> tuple[int, Any]:
        return self.ask("POST", "/v1/faults", {"kind": "gpu", "type": kind, "target": "node-a", **body})

    def fault(self, fault_id: str) -> Any:
        return self.ask("GET", f"/v1/faults/{fault_id}")[1]

    def settings(self) -> Any:
        file = self.folder / "settings"
        return json.loads(file.read_text()) if file.exists() else {}

    def end(self) -> None:
        for agent in self.agents:
            with contextlib.suppress(ProcessLookupError):
                agent.send_signal(signal.SIGCONT)
                agent.kill()
            agent.wait()
            assert agent.stdout is not None
            agent.stdout.close()
