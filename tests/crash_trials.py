"""Kills the suite's own agents at random moments and looks for what they leave behind.

``python -m tests.crash_trials [--trials 200] [--seed N] [--side-by-side 2]`` (``make crash-trials N=200 SEED=1``)

Each trial injects a random fault with a short lease through the fault service and kills fault service, node agent or
both at a moment drawn from the seed. One trial in ten kills the runner, its cell's first or outermost process, alone or
together with agent and service, hence the whole cell; one in ten is of an agent outside cells, that of GPUs (simulated
ones), which is killed or frozen, or of its watchdog, which is killed. The scan reads the kernel (rules, queueing
disciplines, numbers and states of processes, namespaces, files), never the journal, and compares it with what was there
before the trial. It is first shown that it finds leaks that are planted on purpose. Strangers, a table of rules and a
process on every node, have to be there unharmed at the end.

Prints the leaks and the longest overrun: how long after its deadline the last trace of a fault was gone. Exit status 0
needs no leak, and of 100 trials or more at least 60 % of the kills while a fault was active, and each state of a fault
hit.
"""

import argparse
import collections
import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.nftables.main import NFTables

from agents.core import scratch
from support.run import cells
from support.settings import ROOT
from support.targets.local import namespaces
from support.targets.local.agent import Agent
from tests.fake_gpu import POWER_MW
from tests.gpu_machine import Machine

STATES = ("pending", "active", "recovering", "recovered", "failed", "latched")
WORKERS = {"vllm-worker-0": "Never", "vllm-worker-1": "Never", "vllm-worker-2": "Always"}
"""Workers and their restart policies."""
NODES = ("frontend-0", *WORKERS)
ACTIVE_SHARE, ENOUGH_TRIALS = 0.6, 100
# An agent needs half a second to be back, on a machine that is busy with all of this up to two.
PATIENCE_SECONDS = 15.0
SLEEPER = "#!/bin/sh\nexec sleep 100000\n"


# -- the kernel's side


@contextlib.contextmanager
def inside(node: str) -> Iterator[None]:
    """This thread in the network namespace of a node."""
    from agents.core.kernel import enter_network_namespace

    home, there = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(f"/run/netns/{node}", os.O_RDONLY)
    try:
        enter_network_namespace(there)
        yield
    finally:
        enter_network_namespace(home)
        os.close(home)
        os.close(there)


def _rules() -> list[str]:
    with NFTables() as nft:
        tables = [str(each.get_attr("NFTA_TABLE_NAME")) for each in nft.get_tables()]
        chains = [
            f"{each.get_attr('NFTA_CHAIN_TABLE')}/{each.get_attr('NFTA_CHAIN_NAME')}" for each in nft.get_chains()
        ]
    return [f"table {name}" for name in tables] + [f"chain {name}" for name in chains]


def _queues() -> list[str]:
    with IPRoute() as route:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in route.get_links()}
        return [f"qdisc {each.get_attr('TCA_KIND')} on {names.get(each['index'])}" for each in route.get_qdiscs()]


def scan(scratch: Path) -> collections.Counter[str]:
    """Everything of this cell that a fault could have changed, as the kernel shows it: line -> how often."""
    found = collections.Counter(f"namespace {entry.name}" for entry in Path("/run/netns").iterdir())
    for entry in sorted(Path("/run/netns").iterdir()):
        with contextlib.suppress(OSError), inside(entry.name):
            found.update(f"{entry.name}: {line}" for line in [*_rules(), *_queues()])
    found.update(f"cell: {line}" for line in [*_rules(), *_queues()])
    found.update(f"file {entry.relative_to(scratch)}" for entry in scratch.rglob("*"))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                variables = (entry / "environ").read_bytes().split(b"\0")
                node = next((each.rpartition(b":")[2] for each in variables if each.startswith(b"FT_NODE=")), None)
                letter = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0].decode()
                if node is not None and letter not in "ZX":
                    found[f"process on {node.decode()}: {'stopped' if letter in 'Tt' else 'running'}"] += 1
    return found


# -- one cell, many trials


class Trials:
    """Trials in the cell that this process runs in."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.agent = Agent.of_this_cell()
        self.scratch = Path(os.environ["FT_SCRATCH"])
        self.hits: collections.Counter[str] = collections.Counter()
        self.kills: collections.Counter[str] = collections.Counter()
        self.leaks: list[str] = []
        self.longest = 0.0
        self.program = self.scratch / "program"
        self.victim = next(iter(WORKERS))

    def call(self, method: str, path: str, body: Any = None, timeout: float = 20.0) -> Any:
        """Ask the fault service; ``OSError`` where it was killed meanwhile."""
        address = urllib.parse.urlsplit(os.environ["FT_FAULTS"]).netloc
        connection = http.client.HTTPConnection(address, timeout=timeout)
        headers = {"Authorization": f"Bearer {os.environ['FT_AGENT_TOKEN']}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            return json.loads(connection.getresponse().read())
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def until(self, condition: Callable[[], bool], what: str) -> float:
        """Wait for it; returns when it came true."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(what)
            time.sleep(0.01)
        return time.monotonic()

    def pids(self) -> dict[str, int]:
        """Agent and service as children of the cell's first process."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    line = (entry / "cmdline").read_bytes()
                    for name, module in (("agent", b"-m agents.node "), ("service", b"-m agents.service ")):
                        if module in line:
                            found[name] = int(entry.name)
        return found

    def prepare(self) -> None:
        """Nodes with a process each, and the strangers."""
        self.program.write_text(SLEEPER)
        self.program.chmod(0o755)
        for name in NODES:
            self.agent.add_node(name, "worker" if name in WORKERS else "frontend")
            spec: dict[str, Any] = {"node": name, "log": str(self.scratch / f"{name}.log")}
            spec |= {
                "env": {"PATH": os.environ["PATH"]},
                "gpus": int(name in WORKERS),
                "restart_policy": WORKERS.get(name, "Never"),
            }
            self.agent.run(argv=[str(self.program)], **spec)
        ready = lambda: all(each["ready"] for each in self.agent.processes().values())  # noqa: E731
        self.until(ready, "all processes run")
        self.strangers = []
        for name in NODES:
            with inside(name), NFTables() as nft:
                nft.table("add", name="stranger")
                self.strangers.append(subprocess.Popen(["sleep", "100000"]))
        # The first fault of each kind leaves what stays: the journal, the audit log.
        hang = {"target_pod": self.victim, "type": "hang"}
        fault = self.call("POST", "/api/v1/faults/process/inject", hang)
        self.call("POST", f"/api/v1/faults/{fault['id']}/recover")
        self.before = scan(self.scratch)

    def find_planted(self) -> list[str]:
        """Plant a leak of each sort; returns the sorts that the scan missed."""
        missed = []
        process = self.agent.processes()[self.victim]["pid"]
        second: list[subprocess.Popen[bytes]] = []

        def rule() -> None:
            with inside(self.victim), NFTables() as nft:
                nft.table("add", name="planted")

        def no_rule() -> None:
            with inside(self.victim), NFTables() as nft:
                nft.table("del", name="planted")

        def start() -> None:
            env = os.environ | {"FT_NODE": f"{self.scratch}:{self.victim}"}
            second.append(subprocess.Popen([str(self.program)], env=env))

        def end() -> None:
            second[0].kill()
            second[0].wait()

        def queue(command: str) -> None:
            with inside(self.victim), IPRoute() as route:
                index = route.link_lookup(ifname="eth0")[0]
                rate = {"rate": 1000000, "burst": 10000, "latency": 50} if command == "add" else {}
                route.tc(command, "tbf", index, handle="1:", **rate)

        sorts: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "rule": (rule, no_rule),
            "queueing discipline": (lambda: queue("add"), lambda: queue("del")),
            "stopped process": (lambda: os.kill(process, signal.SIGSTOP), lambda: os.kill(process, signal.SIGCONT)),
            "second process on a node": (start, end),
            "namespace": (Path("/run/netns/planted").touch, Path("/run/netns/planted").unlink),
            "file": ((self.scratch / "planted").touch, (self.scratch / "planted").unlink),
        }
        for sort, (plant, remove) in sorts.items():
            plant()
            try:  # a signal takes its effect when the process is next scheduled
                self.until(lambda: scan(self.scratch) != self.before, "it is seen")
            except TimeoutError:
                missed.append(sort)
            remove()
            self.until(lambda: scan(self.scratch) == self.before, f"the planted {sort} is gone again")
        return missed

    def request(self, aim: str) -> tuple[str, dict[str, Any]]:
        """A random fault; for ``latched`` and ``failed`` one that can end so."""
        draw, worker = self.random, self.random.choice(list(WORKERS))
        duration = round(draw.uniform(0.4, 1.0), 3)
        if aim == "latched":
            return "gpu", {"target_pod": worker, "fault_type": "XID_ERROR", "xid": 31, "duration_seconds": 30}
        if aim == "failed":
            return "process", {"target_pod": self.victim, "type": "crash", "duration_seconds": 0.4}
        kind = draw.choice(("process", "network", "gpu"))
        body: dict[str, Any]
        if kind == "process":
            body = {"target_pod": worker, "type": draw.choice(("crash", "terminate", "hang", "restart"))}
        elif kind == "network":
            body = {"partition_type": "FRONTEND_WORKER", "direction": draw.choice(("both", "to", "from"))}
            mode = draw.choice(("drop", "reject", "reset", "loss", "bandwidth"))
            body |= {
                "mode": mode,
                "parameters": {"loss": {"percent": 50}, "bandwidth": {"rate_kbit": 800}}.get(mode, {}),
            }
        else:
            kinds = ("THROTTLE", "OVERHEAT", "COMPUTE_OVERLOAD", "MEMORY_PRESSURE", "XID_ERROR")
            body = {"target_pod": worker, "fault_type": draw.choice(kinds), "severity": "MEDIUM"}
            if body["fault_type"] == "XID_ERROR":
                body["xid"] = draw.choice((43, 48, 74, 79, 94, 95, 119, 120))
        return kind, body | {"duration_seconds": duration}

    def moment(self, seconds: float) -> None:
        """Let a moment of at most so many seconds pass."""
        time.sleep(self.random.uniform(0, seconds))

    def state(self, known: set[str]) -> tuple[str, float]:
        """State and deadline of this trial's fault, as the journal has them last; for the statistics alone."""
        lines = (self.scratch / "journal.jsonl").read_text().splitlines()
        for line in reversed(lines):
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry["id"] not in known:
                    return entry["state"], entry["deadline"]
        return "none", time.monotonic()

    def known(self) -> set[str]:
        """Ids of all faults so far."""
        lines = (self.scratch / "journal.jsonl").read_text().splitlines()
        return {json.loads(line)["id"] for line in lines if line.endswith("}")}

    def _await_state(self, known: set[str], wanted: tuple[str, ...], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.state(known)[0] not in wanted and time.monotonic() < deadline:
            pass  # the states in question last for a millisecond

    def trial(self, aim: str) -> None:
        """One fault, one kill, and a look at what is left."""
        known = self.known()
        self.until(lambda: len(self.pids()) == 2, "agent and service run")
        kind, body = self.request(aim)
        victims = self.random.choice((("agent",), ("service",), ("agent", "service")))
        if aim in ("pending", "recovering"):
            victims = self.random.choice((("agent",), ("agent", "service")))

        def inject() -> None:
            with contextlib.suppress(OSError):
                self.call("POST", f"/api/v1/faults/{kind}/inject", body)

        client = threading.Thread(target=inject)
        pids = self.pids()
        client.start()
        if aim == "failed":
            self._await_state(known, ("active",), 5)
            self.program.rename(self.scratch / "program.away")
        if aim == "latched":
            client.join()
            self.call("POST", "/api/v1/faults/recover")
        after = {"active": 5.0, "pending": 5.0, "recovering": 8.0, "recovered": 8.0, "failed": 8.0, "latched": 5.0}
        over = ("recovered", "latched", "failed")
        self._await_state(known, (aim, *over) if aim != "failed" else ("failed",), after[aim])
        if aim == "active":
            self.moment(max(0.0, self.state(known)[1] - time.monotonic()))  # when the kill comes
        for name in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[name], signal.SIGKILL)
        state, _ = self.state(known)
        self.hits[state] += 1
        self.kills[" and ".join(victims)] += 1
        client.join()
        if aim == "failed":
            (self.scratch / "program.away").rename(self.program)
            self.until(lambda: len(self.pids()) == 2, "agent and service run")
            for entry in self.call("GET", "/api/v1/faults"):
                if entry["id"] not in known:
                    self.call("POST", f"/api/v1/faults/{entry['id']}/recover")
        deadline = max(self.state(known)[1] if state not in over else time.monotonic(), time.monotonic())
        try:
            clean = self.until(lambda: scan(self.scratch) == self.before, "")
        except TimeoutError:
            now = scan(self.scratch)
            lost, stays = sorted((self.before - now).elements()), sorted((now - self.before).elements())
            self.leaks.append(f"{body} (killed {victims} when {state}): left {stays}, missing {lost}")
            self.before = now
            return
        if aim not in ("failed", "latched"):
            self.longest = max(self.longest, clean - deadline)
        self.until(lambda: not [each for each in self.call("GET", "/api/v1/faults?active=true") if each], "over")

    def run(self, trials: int) -> dict[str, Any]:
        """All trials; returns what was seen."""
        self.prepare()
        missed = self.find_planted()
        rare = ("pending", "recovering", "recovered", "failed", "latched")
        for number in range(trials):
            # One in four aims at a state that lasts for a moment only; the others at any moment of an active fault.
            aim = rare[number // 4 % len(rare)] if number % 4 == 0 else "active"
            self.trial(aim)
        harmed = [str(each.pid) for each in self.strangers if each.poll() is not None]
        for name in NODES:
            with inside(name):
                harmed += [] if "table stranger" in _rules() else [name]
        for each in self.strangers:
            each.kill()
        return {
            "trials": trials,
            "hits": self.hits,
            "kills": self.kills,
            "leaks": self.leaks + [f"stranger harmed: {each}" for each in harmed],
            "longest": self.longest,
            "missed": missed,
        }


# -- the runner is killed


TENANT = """
import contextlib, sys
from tests.crash_trials import Trials
trials = Trials(int(sys.argv[1]))
trials.prepare()
print(trials.scratch, flush=True)
while True:
    kind, body = trials.request("active")
    with contextlib.suppress(OSError):
        trials.call("POST", f"/api/v1/faults/{kind}/inject", body | {"duration_seconds": 60})
        trials.moment(2)
        trials.call("POST", "/api/v1/faults/recover")
"""


def kill_runner(seed: int) -> tuple[str, str, list[str]]:
    """A cell that injects fault after fault, and a moment when its runner, first or outermost process is killed, alone
    or after agent and service; returns the state that was hit, who was killed and what was left.
    """
    import psutil

    draw = random.Random(seed)
    command = cells.command([sys.executable, "-c", TENANT, str(seed)], "on")
    before = {entry.name for entry in Path("/sys/class/net").iterdir()}
    rules = set(_rules())
    # the runner complains on stderr when agent and service are killed
    quiet = subprocess.DEVNULL
    cell = subprocess.Popen(command, cwd=ROOT, env=cells.environment(), stdout=subprocess.PIPE, stderr=quiet, text=True)
    try:
        assert cell.stdout
        scratch = cell.stdout.readline().strip()
        time.sleep(draw.uniform(0.0, 3.0))
        tree = [psutil.Process(cell.pid), *psutil.Process(cell.pid).children(recursive=True)]
        lines = {}
        for each in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                lines[each] = " ".join(each.cmdline())
        [tenant] = [each for each in lines if TENANT[:20] in lines[each] and "agents.cell" not in lines[each]]
        programs = {"node agent": "-m agents.node ", "fault service": "-m agents.service "}
        others = {name: [each for each in lines if module in lines[each]] for name, module in programs.items()}
        together = draw.choice(((), ("node agent",), ("fault service",), ("node agent", "fault service")))
        victim = draw.choice(("outermost process", "first process", "runner"))
        journal = Path(f"/proc/{tenant.pid}/root{scratch}/journal.jsonl").read_text()
        states = [json.loads(line)["state"] for line in journal.splitlines() if line.endswith("}")]
        for name in together:
            others[name][0].kill()
        {"outermost process": tree[0], "first process": tree[1], "runner": tenant}[victim].kill()
        _, left = psutil.wait_procs(tree, PATIENCE_SECONDS)
    finally:
        cell.kill()
        cell.wait()
    leaks = [f"process {each.pid} of a cell whose {victim} was killed" for each in left]
    leaks += [f"link {name}" for name in {entry.name for entry in Path("/sys/class/net").iterdir()} - before]
    leaks += [f"outside: {rule}" for rule in set(_rules()) - rules]
    return states[-1], " and ".join((victim, *together)), leaks


# -- an agent outside cells


def kill_gpu_agent(seed: int) -> tuple[str, str, list[str], float]:
    """A fault of a simulated machine with GPUs, whose agent is killed or frozen, or its watchdog killed, at a moment
    drawn from ``seed``; returns the state that was hit, what was done to whom, what was left, and the overrun.
    """
    import psutil

    draw = random.Random(seed)
    kind = draw.choice(("MEMORY_PRESSURE", "COMPUTE_OVERLOAD", "THROTTLE", "OVERHEAT"))
    deed = draw.choice(("GPU agent killed", "GPU agent frozen", "watchdog killed"))
    with scratch.folder(ROOT / "reports", "crash-trials-") as folder:
        machine = Machine(folder)
        machine.supervised = False

        def watchdogs() -> list[psutil.Process]:
            wanted = {"agents.watchdog", f"--state-dir={machine.state}"}
            return [each for each in psutil.process_iter(["cmdline"]) if wanted <= set(each.info["cmdline"] or [])]

        def left() -> list[str]:
            taken = [file.name for file in machine.folder.glob("*-*") if _lives(int(file.name.rpartition("-")[2]))]
            changed = [f"{key} {value}" for each in machine.settings().values() for key, value in each.items() if value]
            return [f"load {name}" for name in taken] + [each for each in changed if each != f"power {POWER_MW}"]

        try:
            machine.start("--allow-clock-control")
            # The processes of a load need their time to begin, and there has to be some left then.
            status, fault = machine.inject(kind, duration_seconds=round(draw.uniform(3.0, 5.0), 3))
            if status != 201:
                return "none", deed, [f"{kind}: refused with {status}, {fault}"], 0.0
            time.sleep(draw.uniform(0.0, max(0.0, fault["deadline"] - time.monotonic())))
            state = machine.fault(fault["id"])["state"]
            if deed == "GPU agent killed":
                machine.kill()
            elif deed == "GPU agent frozen":
                machine.agents[-1].send_signal(signal.SIGSTOP)
            else:
                watchdogs()[0].kill()
            late = time.monotonic() + PATIENCE_SECONDS
            while (traces := left()) and time.monotonic() < max(late, fault["deadline"] + PATIENCE_SECONDS):
                time.sleep(0.02)
            overrun = 0.0 if traces else time.monotonic() - max(fault["deadline"], late - PATIENCE_SECONDS)
            return state, deed, [f"{kind}, {deed}: left {each}" for each in traces], overrun
        finally:
            machine.end()
            _, still = psutil.wait_procs(watchdogs(), PATIENCE_SECONDS)
            for each in still:
                each.kill()


def _lives(pid: int) -> bool:
    from agents.core.kernel import stat_of

    found = stat_of(pid)
    return found is not None and found[0] not in "ZX"


def main() -> int:
    """Entry point; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash_trials")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--side-by-side", type=int, default=2)
    parser.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        print(json.dumps(Trials(options.inside).run(options.trials)))
        return 0
    if reason := namespaces.missing():
        print(f"crash trials need network namespaces: {reason}", file=sys.stderr)
        return 2
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    runners = options.trials // 10
    inside_cells = options.trials - 2 * runners
    shares = [inside_cells // options.side_by_side] * options.side_by_side
    shares[0] += inside_cells - sum(shares)
    running = []
    for number, share in enumerate(shares):
        argv = [sys.executable, "-m", "tests.crash_trials", f"--inside={seed + number}", f"--trials={share}"]
        command = cells.command(argv, "on")
        running.append(subprocess.Popen(command, cwd=ROOT, env=cells.environment(), stdout=subprocess.PIPE, text=True))
    hits, kills, leaks, missed, longest = (
        collections.Counter[str](),
        collections.Counter[str](),
        list[str](),
        set[str](),
        0.0,
    )
    for each in running:
        output = each.communicate()[0]
        if each.returncode or not output:
            leaks.append(f"a cell of trials ended with status {each.returncode}")
            continue
        seen = json.loads(output.splitlines()[-1])
        hits.update(seen["hits"])
        kills.update(seen["kills"])
        leaks += seen["leaks"]
        missed |= set(seen["missed"])
        longest = max(longest, seen["longest"])
    for number in range(runners):
        state, victims, left = kill_runner(seed + 1000 + number)
        hits[state] += 1
        kills[victims] += 1
        leaks += left
        state, victims, left, overrun = kill_gpu_agent(seed + 2000 + number)
        hits[state] += 1
        kills[victims] += 1
        leaks += left
        longest = max(longest, overrun)
    active = hits["active"] / max(1, sum(hits.values()))
    unhit = [state for state in STATES if not hits[state]]
    print(f"{sum(kills.values())} kills: " + ", ".join(f"{name} {count}" for name, count in sorted(kills.items())))
    print("state of the fault when killed: " + ", ".join(f"{name} {count}" for name, count in sorted(hits.items())))
    never = ", ".join(unhit) or "none"
    print(f"active: {active:.0%} of the kills (at least {ACTIVE_SHARE:.0%}); states never hit: {never}")
    print(f"planted leaks that the scan missed: {', '.join(sorted(missed)) or 'none'}")
    print(f"longest overrun: {longest:.2f} s")
    print(f"leaks: {len(leaks)}")
    for leak in leaks:
        print(f"  {leak}")
    aimless = options.trials >= ENOUGH_TRIALS and (bool(unhit) or active < ACTIVE_SHARE)
    return 1 if leaks or missed or aimless else 0


if __name__ == "__main__":
    sys.exit(main())
