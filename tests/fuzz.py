"""``python -m tests.fuzz [--cases N] [--seed S]``: schemathesis over the OpenAPI page of this cell's fault service.

Behind the service stands a real agent with nodes that do nothing. Exit 1 when a case brings a server error or an answer
that is not as documented, or when the agent or the service dies of it.

Started by :mod:`tests.test_fault_service` in a cell of its own, where its faults are real ones.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.observe.waiting import until
from support.targets.local.agent import Agent, fault_service_of_this_cell

NODES = {
    "frontend-0": "frontend",
    "vllm-worker-0": "worker",
    "vllm-worker-1": "worker",
    "etcd-0": "etcd",
    "nats-0": "nats",
}
# Several processes rather than its own --workers: in threads it trips over CPython 3.11 ("AST constructor recursion").
PROCESSES, EXAMPLES, LONGEST_SECONDS = 4, 40, 300
# 501 is how the API says that this machine cannot do it.
ALLOWED = '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", "501"]\n'


def one_round(seed: int, phases: str) -> tuple[int, str]:
    """Number of cases that passed, and schemathesis' own words, under one seed.

    Raises:
        RuntimeError: a case failed, or schemathesis did.
    """
    argv = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{os.environ['FT_FAULTS']}/openapi.json"]
    argv += ["--header", f"Authorization: Bearer {os.environ['FT_AGENT_TOKEN']}", f"--seed={seed}"]
    argv += ["--checks=not_a_server_error,response_schema_conformance", f"--phases={phases}"]
    argv += [f"--max-examples={EXAMPLES}", "--exclude-path=/metrics", "--generation-database=none", "--no-color"]
    argv += ["--suppress-health-check=too_slow"]  # how fast it makes up cases is a matter of the machine
    with tempfile.TemporaryDirectory(dir=os.environ["FT_SCRATCH"]) as folder:
        (Path(folder) / "schemathesis.toml").write_text(ALLOWED)
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False)
    count = re.search(r"(\d+) generated, (\d+) passed\n", done.stdout)
    if done.returncode or not count or count[1] != count[2]:
        raise RuntimeError(f"seed {seed}: {done.stdout[-9000:]}{done.stderr[-1000:]}")
    return int(count[2]), done.stdout


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    agent = Agent.of_this_cell()
    log = str(Path(os.environ["FT_SCRATCH"]) / "log")
    for name, role in NODES.items():
        agent.add_node(name, role)
        agent.run(node=name, argv=["sleep", "900"], env={"PATH": os.environ["PATH"]}, log=log, gpus=int("w" in name))
    until(lambda: None if all(each["ready"] for each in agent.processes().values()) else "no", 20, "all nodes run")
    service = fault_service_of_this_cell()
    before = agent.topology()["agent_pid"], service.health()["pid"]
    total, seed = one_round(options.seed, "examples,coverage")[0], options.seed
    with ThreadPoolExecutor(PROCESSES) as pool:
        while total < options.cases:
            seeds = range(seed, seed + PROCESSES)
            total += sum(count for count, _ in pool.map(one_round, seeds, ["fuzzing"] * PROCESSES))
            seed += PROCESSES
    if (agent.topology()["agent_pid"], service.health()["pid"]) != before:
        print("the node agent or the fault service has died on the way")
        return 1
    kinds = {fault["kind"] for fault in service.faults()}
    print(
        f"{total} cases, seeds {options.seed} to {seed - 1}, no server error; faults made: {', '.join(sorted(kinds))}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
