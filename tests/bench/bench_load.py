"""The suite's load against AIPerf and a bare aiohttp reader, on the same deployment in one run.

Run it as ``python -m tests.bench.bench_load``; exits 1 where a bound is broken. All three hold 200 streams open against
two simulated vllm workers on the same cores, ask for the same requests, and are measured by what the worker wrote:
tokens asked for, divided by the time from the first request to the last token. Ratios are of rates of one turn, and
their median counts: the best of several turns would hide that a client is slow now and then. A long load follows, whose
client and whose judge have to do with little memory.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import aiohttp

from support import releases
from support.clock import now
from support.contract.shape import Shape
from support.events import EventLog
from support.requests.load import run_load, start_load
from support.requests.plan import LoadPlan
from support.run import bootstrap, cells
from support.settings import ROOT, Settings
from support.targets.local.target import LocalTarget
from support.targets.local.tokenizer import ensure

STREAMS, REQUESTS, TOKENS, PROMPT_WORDS = 200, 1200, 200, 10
LONG_REQUESTS, LONG_TOKENS, BOUND_MIB = 10_000, 50, 200
TURNS = 3
BOUND_BARE, BOUND_AIPERF, BOUND_SEND_LAG = 0.8, 1.5, 0.020
AIPERF = ROOT / ".envs" / "aiperf" / "bin" / "aiperf"


def bare(url: str, model: str) -> float:
    """Tokens per second of a reader that looks at nothing but the lines of each stream."""
    body = {"model": model, "prompt": " ".join(["word"] * PROMPT_WORDS), "max_tokens": TOKENS, "stream": True}

    async def client(session: aiohttp.ClientSession) -> int:
        lines = 0
        for _ in range(REQUESTS // STREAMS):
            async with session.post(f"{url}/v1/completions", json=body) as answer:
                async for line in answer.content:
                    lines += line.startswith(b"data: {")
        return lines

    async def run() -> float:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            begin = now()
            counts = await asyncio.gather(*(client(session) for _ in range(STREAMS)))
            seconds = now() - begin
        if sum(counts) < REQUESTS * TOKENS:
            raise SystemExit(f"the bare reader got {sum(counts)} of {REQUESTS * TOKENS} tokens")
        return REQUESTS * TOKENS / seconds

    return asyncio.run(run())


def ours(url: str, model: str, folder: Path) -> tuple[float, list[float], dict[str, float]]:
    """Tokens per second of the suite's load with its full ledger, its send lags in seconds, and what it cost."""
    plan = LoadPlan(
        base_url=url,
        model=model,
        clients=STREAMS,
        requests_per_client=REQUESTS // STREAMS,
        max_tokens=TOKENS,
        prompt_words=PROMPT_WORDS,
        stagger_seconds=0.001,
    )
    log = run_load(plan, folder)
    entries = log.entries()
    if log.problems or sum(len(entry.tokens) for entry in entries) != REQUESTS * TOKENS:
        raise SystemExit(f"the suite's load is not whole: {log.problems}")
    seconds = max(entry.ended_at or 0.0 for entry in entries) - min(entry.intended_at for entry in entries)
    lags = [(entry.sent_at or 0.0) - entry.intended_at for entry in entries]
    cost = json.loads((folder / "process-0.json").read_text())
    return REQUESTS * TOKENS / seconds, lags, cost


def aiperf(url: str, model: str, folder: Path) -> float:
    """Tokens per second of AIPerf as its own report has it."""
    argv = [str(AIPERF), "profile", "--model", model, "--url", url, "--endpoint-type", "completions", "--streaming"]
    argv += ["--concurrency", str(STREAMS), "--request-count", str(REQUESTS), "--tokenizer", model]
    argv += ["--prompt-input-tokens-mean", str(PROMPT_WORDS), "--prompt-output-tokens-mean", str(TOKENS)]
    argv += ["--extra-inputs", f"max_tokens:{TOKENS}", "--extra-inputs", "ignore_eos:true"]
    argv += ["--artifact-dir", str(folder), "--ui", "none"]
    env = cells.environment() | {"HF_HOME": str(ensure(ROOT / ".envs" / "model")), "HF_HUB_OFFLINE": "1"}
    env |= {"TRANSFORMERS_OFFLINE": "1", "HOME": str(folder), "TMPDIR": os.environ["FT_SCRATCH"]}
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    reports = list(folder.rglob("profile_export_aiperf.json"))
    if done.returncode or not reports:
        raise SystemExit(f"AIPerf failed with status {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return float(json.loads(reports[0].read_text())["output_token_throughput"]["avg"])


def memory(url: str, model: str, folder: Path) -> tuple[float, float]:
    """MiB at most of the client process of a long load, and of a process that judges it afterwards."""
    plan = LoadPlan(
        base_url=url, model=model, clients=STREAMS, requests_per_client=LONG_REQUESTS // STREAMS, max_tokens=LONG_TOKENS
    )
    start_load(plan, folder).wait()
    judge = "import sys; from pathlib import Path; "
    judge += "from support.report.results import process_overflow_recovery_test as judge; "
    judge += "found = judge(sys.argv[1]); assert not found['missing'], found['missing']; "
    judge += f"assert found['succeeded'] == {LONG_REQUESTS}, found; "
    judge += "print(int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]) / 1024)"
    answer = subprocess.run(
        [sys.executable, "-c", judge, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(json.loads((folder / "process-0.json").read_text())["peak_rss_mib"]), float(answer.stdout)


def inside() -> int:
    """Inside a cell: all three in turn, then the long load; prints what was measured as JSON."""
    settings = Settings.load()
    with tempfile.TemporaryDirectory(dir=os.environ["FT_SCRATCH"]) as scratch:
        folder = Path(scratch)
        release = releases.get(settings.dynamo)
        target = LocalTarget(settings, release, folder / "target", EventLog())
        deployment = target.deploy(Shape(engine="vllm", workers=2))
        url, model = deployment.frontend_url, deployment.model
        turns = []
        for turn in range(TURNS):
            (folder / f"aiperf-{turn}").mkdir()
            one = {"bare": bare(url, model), "aiperf": aiperf(url, model, folder / f"aiperf-{turn}")}
            rate, lags, cost = ours(url, model, folder / f"ours-{turn}")
            turns.append(one | {"ours": rate, "lags": lags} | cost)
        long = memory(url, model, folder / "long")
        deployment.remove()
    print(json.dumps({"turns": turns, "memory": long}))
    return 0


def main() -> int:
    """Print the comparison and its bounds; returns 1 when one is broken."""
    bootstrap.ensure(["aiperf"])
    argv = cells.command([sys.executable, "-m", "tests.bench.bench_load", "inside"])
    env = cells.environment() | {"FT_RUN_DIR": str(ROOT / "reports")}
    answer = subprocess.run(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    if answer.returncode:
        return answer.returncode
    found = json.loads(answer.stdout.splitlines()[-1])
    turns = found["turns"]
    print(f"{STREAMS} streams, {REQUESTS} requests of {TOKENS} tokens, {TURNS} turns, tokens per second:")
    for name, words in (("bare", "bare aiohttp reader"), ("aiperf", "AIPerf"), ("ours", "the suite's load")):
        print(f"  {words:<20}" + "".join(f"{turn[name]:8.0f}" for turn in turns))
    held = [
        compare("times the bare reader", [turn["ours"] / turn["bare"] for turn in turns], BOUND_BARE),
        compare("times AIPerf", [turn["ours"] / turn["aiperf"] for turn in turns], BOUND_AIPERF),
    ]
    lag = statistics.quantiles([lag for turn in turns for lag in turn["lags"]], n=100)[98]
    print(f"  p99 send lag {lag * 1e3:.1f} ms over the requests of all turns (bound {BOUND_SEND_LAG * 1e3:.0f})")
    cpu = statistics.median(turn["cpu_seconds"] for turn in turns)
    print(f"  {cpu / REQUESTS / TOKENS * 1e6:.0f} us CPU per token")
    client, judge = found["memory"]
    print(f"{LONG_REQUESTS} requests of {LONG_TOKENS} tokens: {client:.0f} MiB at most for the client process, ")
    print(f"  {judge:.0f} MiB for judging them (bound {BOUND_MIB} each)")
    return int(not all(held) or lag > BOUND_SEND_LAG or max(client, judge) > BOUND_MIB)


def compare(what: str, ratios: list[float], bound: float) -> bool:
    """Print the ratios of all turns, each of two rates of one turn; whether their median keeps the bound."""
    middle = statistics.median(ratios)
    print(f"  {middle:.2f} {what}, the median of {', '.join(f'{each:.2f}' for each in ratios)} (bound {bound})")
    return middle >= bound


if __name__ == "__main__":
    sys.exit(inside() if sys.argv[1:] == ["inside"] else main())
