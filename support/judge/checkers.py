"""The promises that a run under load can be held to, and how one is asked for by its name."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from statistics import median
from typing import Any, ClassVar

from support.amounts import amount
from support.errors import Inconclusive
from support.judge.checker import CHECKERS, BaseChecker, NothingToCheck, ValidationContext, counted, seen_of_load
from support.judge.history import in_vain, longest_wait
from support.judge.lag import own_lag, see_keen
from support.judge.recovery import few
from support.judge.rules.answers import prompt_tokens
from support.judge.samples import Objectives
from support.requests.outcomes import describe, outcome
from support.seen import LoadSeen

WORKER_ROLES = ("worker", "decode", "prefill")
# A deployment that answers at all brings a token more often, on a machine whose cores are shared as well.
LEAST_SILENCE_SECONDS = 1.0


@dataclass(frozen=True)
class CheckResult:
    """What a checker said; ``nothing`` where that proves nothing: it had nothing to check, or the client lagged.
    ``seen`` is what it holds against the load.
    """

    name: str
    passed: bool
    message: str
    nothing: bool = False
    seen: LoadSeen | None = None


def run_check(name: str, context: ValidationContext, parameters: Mapping[str, Any] | None = None) -> CheckResult:
    """Run one checker; whatever it raises is a failure with that message.

    Raises:
        ValueError: there is no such checker, or it has no such parameter.
    """
    if name not in CHECKERS:
        raise ValueError(f"unknown check {name!r}; expected one of {', '.join(CHECKERS)}")
    try:
        checker = CHECKERS[name](**(parameters or {}))
    except TypeError as error:
        raise ValueError(f"check {name!r}: {error}") from None
    passed, nothing = False, False
    try:
        passed = checker.check(context) is True
    except NothingToCheck as error:
        checker.message, nothing = f"nothing to check: {error}", True
    except Inconclusive as error:
        checker.message, nothing = str(error), True
    except AssertionError as error:
        checker.message = str(error)
    except Exception as error:  # noqa: BLE001 - a checker of somebody else's may raise anything; all of it fails
        checker.message = f"{type(error).__name__}: {error}"
    seen = None if passed or nothing else seen_of_load(name, checker.message, checker.silence, context)
    return CheckResult(name, passed, checker.message, nothing, seen)


def _starved(without: Mapping[str, Any]) -> str:
    """Why a claim about times is void, in words."""
    late = f"{without['starved']} late requests came while a process was ready to run but got no processor"
    return f"{late} for more than a fifth of the bound, and without those it would hold"


@dataclass
class SuccessRateChecker(BaseChecker):
    """Of the requests that had to be sent ``at_least`` percent have a whole answer, in a ``phase`` or the whole run."""

    name: ClassVar[str] = "success_rate"
    bounds: ClassVar[Sequence[str]] = ("at_least",)
    options: ClassVar[Sequence[str]] = ("phase",)
    at_least: float = 100.0
    phase: str = ""

    def check(self, context: ValidationContext) -> bool:
        """See the class."""
        figures = context.phase(self.phase) if self.phase else context.results
        rate = figures.get("success_rate")
        if rate is None:
            raise NothingToCheck("no request was meant to succeed")
        seen = f"{rate:.2f} % of {figures['planned']} intended requests succeeded, statuses {figures['statuses']}"
        self.say(rate >= self.at_least, seen)
        return self.whole(context, rate >= self.at_least)


@dataclass
class RecoveryTimeChecker(BaseChecker):
    """In RECOVERY three seconds in a row, which begin within ``within_seconds``, are in the STANDARD band, and of the
    later ones no more than ``relapses`` are not (:func:`support.judge.recovery.stable`).
    """

    name: ClassVar[str] = "recovery_time"
    bounds: ClassVar[Sequence[str]] = ("within_seconds",)
    options: ClassVar[Sequence[str]] = ("relapses",)
    within_seconds: float = 30.0
    relapses: int = 0

    def check(self, context: ValidationContext) -> bool:
        """See the class."""
        lag = context.phase("RECOVERY")["max_lag_ms"]
        band = context.band("RECOVERY")
        see_keen(lag / 1000, self.within_seconds, "time to recover")
        found = context.results["recovery"]
        after, relapses = found["to_stable_seconds"], found["relapses"]
        holds = after <= self.within_seconds and relapses <= self.relapses
        less = found["unstarved"]
        if not holds and less["to_stable_seconds"] <= self.within_seconds and less["relapses"] <= self.relapses:
            raise Inconclusive(f"time to recover: {_starved(less)}; {band.describe()}")
        if after == inf:
            worst = [f"{each['p50_ms']:.0f}/{each['p90_ms']:.0f}" for each in found["after"] if each["asking"]]
            seen = f"never in it for three windows in a row; p50/p90 in ms, window by window: {', '.join(worst)}"
            return self.say(False, f"{seen}; {band.describe()}")
        seen = f"stable after {after:g} s, then out of the band in {relapses} windows"
        return self.say(holds, f"{seen}; {band.describe()}")


@dataclass
class NoFailuresChecker(BaseChecker):
    """Each request that no client gave up has a whole answer."""

    name: ClassVar[str] = "no_failures"

    def check(self, context: ValidationContext) -> bool:
        """See the class."""
        holds = self.every(context.asked, lambda entry: outcome(entry).kind == "complete", "request")
        return self.whole(context, holds)


@dataclass
class HighAvailabilityChecker(BaseChecker):
    """From the failure on ``at_least`` percent of the requests have a whole answer, and never do
    ``longest_outage_seconds`` pass in which nobody gets a token of an answer that ends whole. Of the requests in flight
    at the failure, those that fail count too.
    """

    name: ClassVar[str] = "high_availability"
    bounds: ClassVar[Sequence[str]] = ("at_least", "longest_outage_seconds")
    at_least: float = 99.0
    longest_outage_seconds: float = 5.0

    def check(self, context: ValidationContext) -> bool:
        """See the class."""
        if context.struck_at is None or not context.affected_workers:
            raise NothingToCheck("nothing was hit")
        struck = context.struck_at
        across = [each for each in context.asked if each.intended_at < struck <= (each.ended_at or struck)]
        due = [each for each in context.asked if each.intended_at >= struck]
        if not due:
            raise NothingToCheck("no request was due after the failure")
        good = [each for each in due if outcome(each).kind == "complete"]
        carried = [each for each in across if outcome(each).kind == "complete"]
        asked = len(due) + len(across) - len(carried)
        see_keen(max(map(own_lag, due)), self.longest_outage_seconds, "longest outage")
        times = sorted(at for each in good + carried for at in each.token_times if at >= struck)
        last_due = max(each.intended_at for each in due)
        marks = [struck, *times, max(last_due, *times) if times else last_due]
        outage, since = max((after - before, before) for before, after in pairwise(marks))
        rate = 100 * len(good) / asked
        who, waited = longest_wait(context.waits, since, since + outage)
        if rate >= self.at_least and outage - waited <= self.longest_outage_seconds < outage:
            raise Inconclusive(f"longest outage: {outage:.2f} s without a token, and {who} {in_vain(waited)}")
        self.silence = outage
        self.say(True, f"{rate:.2f} % of {amount(asked, 'request')} succeeded, {outage:.2f} s without a token")
        return self.whole(context, rate >= self.at_least and outage <= self.longest_outage_seconds)


@dataclass
class SingleWorkerChecker(BaseChecker):
    """The only worker of its kind is gone: requests fail or wait, and succeed again once it is back."""

    name: ClassVar[str] = "single_worker"

    def check(self, context: ValidationContext) -> bool:
        """See the class."""
        roles = {node["name"]: node["role"] for node in context.deployment.get("nodes", [])}
        hit = [roles.get(name, "") for name in context.affected_workers]
        if len(hit) != 1 or hit[0] not in WORKER_ROLES or context.struck_at is None:
            raise NothingToCheck(f"expected one worker to be hit, not {list(context.affected_workers)}")
        if (count := list(roles.values()).count(hit[0])) > 1:
            raise NothingToCheck(f"{context.affected_workers[0]} is one of {count}; expected it to be the only one")
        struck = context.struck_at
        due = [each for each in context.asked if each.intended_at >= struck]
        after = sorted(due, key=lambda each: each.intended_at)
        kinds = Counter(outcome(each).kind for each in after)
        if not kinds:
            raise NothingToCheck("no request was due after the failure")
        times = [struck, *sorted(at for each in context.asked for at in each.token_times if at >= struck)]
        silence = max((later - at for at, later in pairwise(times)), default=0.0)
        see_keen(max(map(own_lag, after)), LEAST_SILENCE_SECONDS, "silence")
        if kinds["complete"] == len(after) and silence < LEAST_SILENCE_SECONDS:
            raise NothingToCheck(f"nobody noticed: no request failed, and {silence:.2f} s at most had no token")
        back = outcome(after[-1]).kind == "complete"
        self.silence = silence
        seen = f"after the failure: {dict(kinds)}, {silence:.2f} s without a token; the last request "
        self.say(True, seen + ("succeeded" if back else "did not succeed"))
        return self.whole(context, back and kinds["broken"] == 0)


@dataclass
class MigrationChecker(BaseChecker):
    """At least ``at_least`` requests were moved to another worker and completed there.

    The frontend counts attempts, also those that fail and those of requests that had not begun. Of the attempts for
    answers in flight, the requests in flight at the failure that did not complete are taken off, and what is left is no
    more than those that did: one request may be moved several times.
    """

    name: ClassVar[str] = "migration"
    bounds: ClassVar[Sequence[str]] = ("at_least",)
    at_least: int = 1

    def check(self, context: ValidationContext) -> bool:
        """See the class."""
        every = context.metrics.get("migrations_total", 0)
        attempts = context.metrics.get("ongoing_migrations_total", every)
        struck = context.struck_at
        if struck is None:
            raise NothingToCheck("no failure struck")
        sent = [each for each in context.ledger if each.intended_at <= struck and each.end != "cancelled"]
        across = [each for each in sent if each.ended_at is None or each.ended_at > struck]
        if not across:
            raise NothingToCheck("no request was in flight when the failure struck")
        failed = sum(outcome(each).kind != "complete" for each in across)
        moved = max(0, min(int(attempts), len(across)) - failed)
        lost = f"{failed} of {amount(len(across), 'request')} in flight did not complete"
        seen = f"{amount(attempts, 'attempt')}, {lost}: {moved} migrated"
        return self.say(moved >= self.at_least and not failed, seen)


@dataclass
class NothingMovedChecker(BaseChecker):
    """No answer in flight has moved: workers that were shut down have finished theirs."""

    name: ClassVar[str] = "nothing_moved"

    def check(self, context: ValidationContext) -> bool:
        """See the class."""
        if not context.affected_workers:
            raise NothingToCheck("nothing was hit")
        if (moved := context.metrics.get("ongoing_migrations_total")) is None:
            raise NothingToCheck("moved requests were not counted")
        return self.say(not moved, f"{amount(moved, 'attempt')} to move an answer in flight")


@dataclass
class OverloadRejectionChecker(BaseChecker):
    """In OVERFLOW the excess is rejected with HTTP ``status`` (by default that of the release), the rest is served and
    undamaged, and in RECOVERY every request is accepted again.
    """

    name: ClassVar[str] = "overload_rejection"
    options: ClassVar[Sequence[str]] = ("status",)
    status: int | None = None

    def check(self, context: ValidationContext) -> bool:
        """See the class."""
        over, back = context.phase("OVERFLOW"), context.phase("RECOVERY")
        if not over["refused"]:
            raise NothingToCheck("nothing was rejected in OVERFLOW")
        status = self.status or context.overload_status
        if status is None:
            raise NothingToCheck("the overload status of this release is not known")
        seen = f"OVERFLOW: {over['refused']} rejected, {over['broken']} broken, statuses {over['statuses']}; "
        seen += f"RECOVERY: {back['success_rate']} % succeeded; overload status {status}"
        # Every refusal has that status: one inside of a 200, or a port that is closed, tells no client to wait. Who
        # refuses everything, or leaves requests without an end, has not refused what is too much.
        told = over["statuses"].get(str(status), 0) == over["refused"]
        good = over["succeeded"] and not over["missing_ends"] and not over["broken"] and told
        return self.say(bool(good) and back["success_rate"] == 100, seen)


@dataclass
class StandardBandChecker(BaseChecker):
    """A ``phase`` as a whole, by default RECOVERY, is in the STANDARD band (:class:`support.judge.recovery.Band`)."""

    name: ClassVar[str] = "standard_band"
    options: ClassVar[Sequence[str]] = ("phase",)
    phase: str = "RECOVERY"

    def check(self, context: ValidationContext) -> bool:
        """See the class."""
        now = context.phase(self.phase)
        band = context.band(self.phase)
        objectives = context.scenario.objectives if context.scenario else Objectives()
        for bound in (objectives.ttft_ms, objectives.itl_ms, objectives.latency_ms):
            if bound is not None:
                see_keen(now["p99_lag_ms"] / 1000, bound / 1000, f"goodput in {self.phase}")
        times = "ttft" if now["p50_ttft_ms"] is not None else "latency"
        middle, goodput, slow = now[f"p50_{times}_ms"], now["goodput_rate"], context.results["recovery"]["slow"]
        if middle is None or goodput is None:
            raise NothingToCheck(f"no request in {self.phase} needed an answer")
        served = goodput >= band.goodput_rate
        fits = middle <= band.p50_ms and few(slow[self.phase], now["planned"]) and served
        less = context.results["recovery"]["unstarved"]
        rest = less["p50_ms"][self.phase]
        would_fit = rest is not None and rest <= band.p50_ms and few(less["slow"][self.phase], now["planned"])
        if not fits and served and would_fit:
            raise Inconclusive(f"times in {self.phase}: {_starved(less)}; {band.describe()}")
        seen = f"{self.phase} p50 {middle:.0f} ms, p99 {now[f'p99_{times}_ms']:.0f} ms, {slow[self.phase]} of "
        seen += f"{now['planned']} requests slower than the bound for p99, goodput {goodput:.1f} %"
        return self.say(fits, f"{seen}; {band.describe()}, goodput {band.goodput_rate:.1f} %")


@dataclass
class CleanRefusalsChecker(BaseChecker):
    """Each request without an answer got a clean rejection: nothing is cut off or looks like an answer."""

    name: ClassVar[str] = "clean_refusals"

    def check(self, context: ValidationContext) -> bool:
        """See the class."""
        refused = [each for each in context.ledger if outcome(each).kind not in ("complete", "cancelled")]
        return self.every(refused, lambda entry: outcome(entry).kind == "error", "refusal")


@dataclass
class OverlongRefusedChecker(BaseChecker):
    """A request whose prompt alone fills the longest sequence of the deployment ends in a clean error, every other one
    in a whole answer. With ``statuses`` that error is an HTTP answer with one of them.
    """

    name: ClassVar[str] = "overlong_refused"
    options: ClassVar[Sequence[str]] = ("statuses",)
    statuses: Sequence[int] = ()

    def check(self, context: ValidationContext) -> bool:
        """See the class."""
        room = context.scenario.shape.max_model_len if context.scenario else None
        if room is None:
            raise NothingToCheck("the deployment has no max_model_len")
        overlong, wrong = 0, list[str]()
        for entry in context.ledger:
            seen, too_long = outcome(entry).kind, prompt_tokens(entry) >= room
            overlong += too_long
            refused = seen == "error" and (not self.statuses or entry.status_code in self.statuses)
            if seen != "cancelled" and not (refused if too_long else seen == "complete"):
                wrong.append(f"{'overlong' if too_long else 'other'} request: {describe(entry)}")
        if not overlong:
            raise NothingToCheck(f"no prompt fills the room for {room} tokens")
        seen = f"{overlong} of {amount(len(context.ledger), 'prompt')} fill {room} tokens{counted(wrong)}"
        return self.say(not wrong, seen)


@dataclass
class AllAccountedChecker(BaseChecker):
    """Every planned request has a recorded end, and no client has died."""

    name: ClassVar[str] = "all_accounted"

    def check(self, context: ValidationContext) -> bool:
        """See the class."""
        if not context.results.get("planned"):
            raise NothingToCheck("no request was planned")
        lost, lacks = context.results["missing_ends"], context.results["missing"]
        return self.say(not lost and not lacks, "; ".join([f"{amount(lost, 'request')} left no recorded end", *lacks]))


@dataclass
class FlatFootprintChecker(BaseChecker):
    """The suite's own processes end a load with the memory and the file descriptors that they began it with.

    Compared are the medians over the second and the last quarter: the first one has imports and pools to fill, and at
    the end each process has to hold what it recorded of the faults. ``memory_mib`` has room for those records and for
    the arenas of the allocator; ``descriptors`` for the connections of requests that are just being answered.
    """

    name: ClassVar[str] = "flat_footprint"
    bounds: ClassVar[Sequence[str]] = ("memory_mib", "descriptors")
    memory_mib: float = 8.0
    descriptors: int = 4
    least_samples: int = 20

    def check(self, context: ValidationContext) -> bool:
        """See the class."""
        said, holds = [], True
        for name in dict.fromkeys(each["process"] for each in context.footprint):
            looks = [each for each in context.footprint if each["process"] == name]
            if any(each["rss_mib"] is None for each in looks):
                return self.say(False, f"the {name} has died")
            if len(looks) < self.least_samples:
                raise NothingToCheck(f"{amount(len(looks), 'look')} at the {name} of {self.least_samples} needed")
            quarter = len(looks) // 4
            for unit, bound in (("rss_mib", self.memory_mib), ("fds", self.descriptors)):
                first, last = (
                    median(each[unit] for each in part) for part in (looks[quarter:][:quarter], looks[-quarter:])
                )
                holds &= last - first <= bound
                said.append(f"{name} {first:g} to {last:g} {unit.replace('rss_mib', 'MiB')}")
        if not said:
            raise NothingToCheck("the processes were not watched")
        return self.say(holds, ", ".join(said))


@dataclass
class LedgerAgainstCountersChecker(BaseChecker):
    """The frontend counted the requests that reached it: no fewer than were answered, no more than were sent."""

    name: ClassVar[str] = "ledger_against_counters"

    def check(self, context: ValidationContext) -> bool:
        """See the class."""
        if not context.ledger or "requests_total" not in context.metrics:
            raise NothingToCheck("no request, or no counter")
        least = sum(each.status_code is not None and each.status_code < 300 for each in context.ledger)
        most = sum(each.connected_at is not None or each.status_code is not None for each in context.ledger)
        counted = context.metrics["requests_total"]
        return self.say(least <= counted <= most, f"{counted:g} counted, {least} answered, {most} sent")
