"""What this machine can, each found by trying it in a namespace that is thrown away, or by looking.

Nothing here changes the machine. ``python -m support.targets.local.machine NAME ...`` is the part that runs in such a
namespace.
"""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from agents.core.kernel import enter_new_namespaces
from support.contract.target import Capability
from support.settings import ROOT, Settings
from support.targets.local import namespaces
from support.targets.needs import NEEDS, known

# Each answers within a second; on a machine with every core busy the imports alone have taken more than 5.
TRIAL_SECONDS = 15


def probe(settings: Settings, names: Iterable[str] = NEEDS) -> dict[str, Capability]:
    """What this machine can do.

    Args:
        settings: of the run: they may leave namespaces unused, and name a cluster.
        names: those to look for. nftables, tbf and netem together cost half a second, the others some milliseconds.

    Raises:
        ValueError: a name that is not in :data:`support.targets.needs.NEEDS`.
    """
    wanted = known(names, NEEDS)
    inside = _try_in_a_namespace([name for name in wanted if name in _TRIALS])
    return {name: inside[name] if name in inside else _LOOKS[name](settings) for name in wanted}


def _namespaces(settings: Settings) -> Capability:
    # In a cell it is the cell that counts: its nodes are namespaces, or they are not, whatever the machine could do.
    switched_off = settings.cells == "off" or os.environ.get("FT_CELL", "namespaces") != "namespaces"
    reason = "the nodes of this run are on loopback (cells=off)" if switched_off else namespaces.missing()
    kind = "as root" if os.geteuid() == 0 else "user namespaces"
    return Capability("namespaces", reason is None, reason or f"PID, mount and network ({kind})")


def _root(_settings: Settings) -> Capability:
    if os.geteuid() != 0:
        return Capability("root", False, f"user id {os.geteuid()}")
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        return Capability("root", False, "root in a user namespace only")
    return Capability("root", True, "root")


def _kmsg(_settings: Settings) -> Capability:
    switch = Path("/proc/sys/kernel/printk_devkmsg")
    if switch.exists() and switch.read_text().strip() == "off":  # writes would then succeed and vanish
        return Capability("kmsg", False, "/dev/kmsg drops what user space writes (printk.devkmsg=off)")
    try:
        os.close(os.open("/dev/kmsg", os.O_WRONLY))
    except OSError as error:
        return Capability("kmsg", False, f"/dev/kmsg: {error.strerror}")
    return Capability("kmsg", True, "/dev/kmsg is writable")


def _cgroups(_settings: Settings) -> Capability:
    mounts = _mounts(Path("/proc/mounts").read_bytes())
    usable = []
    for _, folder, kind, *_ in mounts:
        memory = kind == "cgroup" and Path(folder, "memory.limit_in_bytes").exists()
        unified = kind == "cgroup2" and "memory" in _words(Path(folder, "cgroup.controllers"))
        if (memory or unified) and os.access(folder, os.W_OK):
            usable.append(f"{'v2' if unified else 'v1'} at {folder}")
    return Capability("cgroups", bool(usable), ", ".join(usable) or "no writable hierarchy with the memory controller")


def _mounts(listing: bytes) -> list[list[str]]:
    """Fields of each mount in /proc/mounts, where white space and backslashes in names are ``\\NNN``, octal."""

    def plain(field: bytes) -> str:
        return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field))

    return [[plain(field) for field in line.split(b" ")] for line in listing.split(b"\n") if line]


def _gpu(_settings: Settings) -> Capability:
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
        gpus = [line.split(" (UUID")[0] for line in listed.splitlines() if line.startswith("GPU ")]
    except (OSError, subprocess.SubprocessError):
        gpus = []
    gpus = gpus or [str(each) for each in sorted(Path("/dev").glob("nvidia[0-9]*"))]
    return Capability("gpu", bool(gpus), ", ".join(gpus) or "none")


def _strain(_settings: Settings) -> Capability:
    return Capability("strain", True, "simulated by the node agent")


def _cluster(settings: Settings) -> Capability:
    given = settings.kubeconfig
    if given is None:
        return Capability("cluster", False, "KUBECONFIG is not set")
    missing = [each for each in given.split(os.pathsep) if each and not Path(each).is_file()]
    return Capability("cluster", not missing, f"no file {missing[0]}" if missing else given)


def _elsewhere(name: str, _settings: Settings) -> Capability:
    return Capability(name, False, f"only the target {NEEDS[name].only} has that")


def _words(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


def _pyroute2(module: str) -> Any:
    return importlib.import_module(module)  # untyped, and too slow (0.3 s) to be imported where nobody asks


def _nftables() -> str:
    tables = _pyroute2("pyroute2.nftables.main").NFTables(nfgen_family=1)
    tables.table("add", name="probe")
    tables.sets("add", table="probe", name="leases", key_type="ipv4_addr", timeout=3000)
    if "probe" not in [each.get_attr("NFTA_TABLE_NAME") for each in tables.get_tables()]:
        raise OSError(0, "a table that was added is not there")
    return "sets with timeouts"


def _netem() -> str:
    with _pyroute2("pyroute2").IPRoute() as route:
        [loopback] = route.link_lookup(ifname="lo")
        route.tc("add", "netem", index=loopback, handle=0x10000, delay=1000)
    return "delay on a link"


def _tbf() -> str:
    with _pyroute2("pyroute2").IPRoute() as route:
        [loopback] = route.link_lookup(ifname="lo")
        route.tc("add", "tbf", index=loopback, handle=0x10000, rate="1mbit", latency="50ms", burst=3028)
        route.tc("del", index=loopback, root=True)  # the next one that is tried has its place
    return "limit on a link"


_LOOKS: dict[str, Callable[[Settings], Capability]] = {
    "namespaces": _namespaces,
    "root": _root,
    "kmsg": _kmsg,
    "cgroups": _cgroups,
    "strain": _strain,
    "gpu": _gpu,
    "cluster": _cluster,
    **{name: partial(_elsewhere, name) for name, need in NEEDS.items() if need.only},
}
_TRIALS: dict[str, Callable[[], str]] = {"nftables": _nftables, "tbf": _tbf, "netem": _netem}


def _try_in_a_namespace(names: list[str]) -> dict[str, Capability]:
    if not names:
        return {}
    argv = [sys.executable, "-m", "support.targets.local.machine", *names]
    try:
        tried = subprocess.run(argv, capture_output=True, text=True, timeout=30, cwd=ROOT, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return {name: Capability(name, False, f"cannot be tried: {error}") for name in names}
    if tried.returncode != 0:
        reason = (tried.stderr.strip() or "no network namespace").splitlines()[-1]
        return {name: Capability(name, False, f"cannot be tried: {reason}") for name in names}
    return {name: Capability(name, *result) for name, result in json.loads(tried.stdout).items()}


def _no_answer(_number: int, _frame: object) -> None:
    raise TimeoutError(f"no answer within {TRIAL_SECONDS} seconds")


def _main(names: list[str]) -> None:
    results: dict[str, tuple[bool, str]] = {}
    _pyroute2("pyroute2.nftables.main")  # before the clock runs, for a busy machine takes seconds to load it
    signal.signal(signal.SIGALRM, _no_answer)  # pyroute2 waits for ever where nftables is refused
    for name in names:
        signal.alarm(TRIAL_SECONDS)
        try:
            results[name] = (True, _TRIALS[name]())
        except Exception as error:  # noqa: BLE001 - any refusal is an answer
            code = getattr(error, "code", None)  # what netlink answered
            words = f"the kernel says: {os.strerror(code)}" if code else f"{type(error).__name__}: {error}"
            results[name] = (False, words)
        finally:
            signal.alarm(0)
    print(json.dumps(results))


if __name__ == "__main__":
    try:
        enter_new_namespaces("net", *(["user"] if os.geteuid() else []))
    except OSError as refusal:
        sys.exit(str(refusal))
    _main(sys.argv[1:])
