"""Workers in memory: the ruler, and engines that write random words as the mocker does."""

import asyncio
import itertools
import random
from typing import Any

from agents.sabotage import marks
from support import sabotage
from support.targets.fake.etcd import FakeLease
from support.targets.fake.hosts import Host
from support.targets.fake.members import DRAIN_SECONDS, INSTANCES, DynamoProcess
from support.targets.fake.streams import Call

GRACE_SECONDS = 5.0
"""How long one that hands over goes on, where nobody says otherwise."""
READ_SECONDS, TOKEN_SECONDS = 0.02, 2e-5
"""For engines that are not told how long they read: for any prompt, and per token of it."""
LOOK_SECONDS = 0.05
GATE_SECONDS = 0.02
BLOCKS, BLOCK_TOKENS = 16384, {"vllm": 64, "sglang": 1, "trtllm": 32, "ruler": 64}
"""Memory of a worker, and tokens that a block of it holds."""
ANSWER_BYTES = 120
LIES = ("drops-token", "repeats-token", "swaps-tokens", "cuts-short")
"""``FT_SABOTAGE=answers=KIND``: what is wrong with the second half of every answer, which says that it is whole."""
LATER_LIES = ("drops-later", "slows-later", "never-idle", "stays-listed")
"""Further kinds: answers lack a token from :data:`LATER_SECONDS` after the first fault on, or come :data:`SLOW_SECONDS`
late from it on; the gauge of requests in flight does not come back to 0; dead workers stay registered.
"""
LATER_SECONDS, SLOW_SECONDS, FOR_EVER = 9.5, 1.0, 3600.0


class Worker(DynamoProcess):
    """A worker of any engine and role."""

    def __init__(self, host: Host, *of_all: Any) -> None:
        super().__init__(host, *of_all)
        self.instance = random.getrandbits(48)
        self.calls: set[Call] = set()
        self.giving_up = False
        self._exact = self.shape.engine == "ruler"
        self._holds: dict[int, int] = {}
        self._held_until = 0.0
        self._asked = sabotage.asked()[1] if sabotage.asked()[0] == "answers" else ""
        if self._asked == "stays-listed":
            marks.leave(f"{self.host.node.name} is registered for ever")
            self._lease_seconds = FOR_EVER

    @property
    def _lie(self) -> str:
        """What is wrong with the tokens that it writes now; one of :data:`LIES`, or nothing."""
        if self._asked == "drops-later" and self._struck(LATER_SECONDS):
            return "drops-token"
        return self._asked if self._asked in LIES else ""

    def _struck(self, ago: float = 0.0) -> bool:
        """Whether the first fault was so many seconds ago, or more."""
        struck_at = self.network.struck_at
        return struck_at is not None and self.now >= struck_at + ago

    @property
    def component(self) -> str:
        """``prefill`` or ``backend``, as frontends list it."""
        return "prefill" if self.host.node.role == "prefill" else "backend"

    def register(self, lease: FakeLease) -> None:
        """See :class:`support.targets.fake.members.DynamoProcess`."""
        self.instance = lease.number
        key = f"{INSTANCES}dynamo/{self.component}/generate/{lease.number:x}"
        self.cluster.put(lease, key, self)

    def labels(self) -> dict[str, str]:
        """See :class:`support.targets.fake.members.DynamoProcess`."""
        return {"dynamo_endpoint": "generate", "worker_id": f"{self.instance:x}"} if self.lease else {}

    def begin(self) -> None:
        """See :class:`support.targets.fake.hosts.FakeProgram`."""
        super().begin()
        for name in ("worker_requests", "worker_inflight", "worker_response_bytes"):
            self.counts.add(self.names[name], 0)
        self.network.watchers.append(self._look)

    def _look(self) -> None:
        for call in list(self.calls):
            call.look()

    def end(self) -> None:
        """See :class:`support.targets.fake.hosts.FakeProgram`."""
        super().end()
        if self._look in self.network.watchers:
            self.network.watchers.remove(self._look)
        for call in list(self.calls):
            call.end("broken")

    @property
    def busy(self) -> float:
        """Share of its memory that is taken, in percent."""
        size = BLOCK_TOKENS[self.shape.engine]
        taken = sum(-(-(call.work.prompt + call.work.written) // size) for call in self.calls)
        return 100 * taken / BLOCKS

    # -- answers

    def take(self, call: Call) -> None:
        """A request has arrived."""
        self.calls.add(call)
        self.took(1)
        self.counts.add(self.names["worker_requests"])
        self.counts.add(self.names["worker_inflight"])
        self.do(self._work(call))

    async def _work(self, call: Call) -> None:
        work, produced, outcome = call.work, [0], "abandoned"
        if not self.awake.is_set():
            await self.awake.wait()
        self.host.say(f"request received request_id={work.request_id}")  # as Dynamo's own workers log it
        if self._exact:
            given = work.prompt + work.written
            self._journal("received", call, start=given, max_tokens=work.budget)
        try:
            await self._read(call)
            outcome = "finished" if work.prefill else await self._write(call, produced)
            call.end(outcome)
        finally:
            if not self.gone:
                self.calls.discard(call)
                if self._asked == "never-idle":
                    marks.leave(f"{self.host.node.name} keeps a request in its gauge")
                else:
                    self.counts.add(self.names["worker_inflight"], -1)
                if self._exact:
                    self._journal("left", call, produced=produced[0], outcome=outcome)
                self.took(-1)

    def _journal(self, event: str, call: Call, **more: Any) -> None:
        self.host.journal(event=event, request_id=call.work.request_id, **more)

    async def _read(self, call: Call) -> None:
        if self._asked == "slows-later" and self._struck():
            marks.leave(f"{self.host.node.name} begins {SLOW_SECONDS:g} s late")
            await self.rest(SLOW_SECONDS)
        seconds = self.shape.prefill_seconds
        if not self._exact:
            reads = call.work.prefill or not self.shape.disaggregated
            seconds = (READ_SECONDS + TOKEN_SECONDS * call.work.prompt) / self.shape.speed if reads else 0.0
        until = self.now + seconds
        while self.now < until and not (call.cancelled or self.giving_up):
            await self.rest(min(LOOK_SECONDS, until - self.now))

    async def _write(self, call: Call, produced: list[int]) -> str:
        work = call.work
        written, total = work.written, work.written + work.budget
        due = self.now
        for number in itertools.count():
            if self._holds:
                await self._pass_gate(call, total, written + number)
            if number == work.budget:
                return "finished"
            if call.cancelled:
                return "stopped"
            if self.giving_up:
                return "given up"
            last = number == work.budget - 1
            for choice in range(work.choices):
                for token in self._tokens(work.prompt + written + number, written + number, total):
                    call.put(choice, token, last)
            produced[0] += 1
            self.counts.add(self.names["worker_response_bytes"], ANSWER_BYTES)
            period = 1 / (self.shape.pace * self.host.pace)
            due = max(due + period, self.now - period)
            await self.rest(max(0.0, due - self.now))
        raise AssertionError

    def _tokens(self, position: int, number: int, total: int) -> list[str]:
        """The next token; none, several or another where it is to lie."""
        middle = total // 2
        if self._lie and number == (total - total // 4 if self._lie == "cuts-short" else middle):
            marks.leave(f"{self._lie}: token {number} of {total}")
        if self._lie == "drops-token" and number == middle:
            return [""]
        if self._lie == "cuts-short" and number >= total - total // 4:
            return [""]
        if self._lie == "swaps-tokens" and number in (middle, middle + 1):
            position += 1 if number == middle else -1
        token = f" p{position}" if self._exact else f" w{random.randrange(1000, 2000)}"
        return [token, token] if self._lie == "repeats-token" and number == middle else [token]

    # -- the gate, as that of the ruler

    async def _pass_gate(self, call: Call, total: int, written: int) -> None:
        def held() -> bool:
            return written >= self._holds.get(total, total + 1) and self.now < self._held_until

        if not held():
            return
        self._journal("held", call, written=written)
        while held() and not (call.cancelled or self.giving_up):
            await self.rest(GATE_SECONDS)
        expired = bool(self._holds) and self.now >= self._held_until
        self._journal("released", call, expired=expired)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """See :class:`support.targets.fake.hosts.FakeProgram`."""
        if path != "/gate":
            return super().answer(method, path, body)
        self._holds = {int(tokens): at for tokens, at in body.get("holds", {}).items()}
        self._held_until = self.now + body.get("seconds", 0.0)
        return {"holds": self._holds}

    # -- leaving

    async def finish(self) -> None:
        """Drain, or hand over."""
        if self.shape.leaving == "handing over":
            await asyncio.sleep(GRACE_SECONDS if self.shape.grace_seconds is None else self.shape.grace_seconds)
        else:
            await self.idle_within(DRAIN_SECONDS if self.shape.drain_seconds is None else self.shape.drain_seconds)
        self.giving_up = True
        await self.idle_within(1.0)
