"""What the catalogue tells before the sentences: a whole scenario with notes, and the words that sentences share."""

from steps.writing.examples import as_text, scenarios

WHOLE = "etcd is cut off from Dynamo for a moment under load"
"""The scenario that is shown as a whole, from features/examples."""
NOTES = (
    "the deployment; a table with settings may stand below it",
    "the clients that ask it",
    "what breaks: when, who, what, for how long",
    "what users must see; this sentence plays the load to its end",
    "one more; each one that does not hold is told",
)
"""A note for each of its steps."""
TAGGING = (
    "Copy it into a file below `features/`, change it, and run `make lint-features`. `make new` writes such a file.",
    "Tags are written by hand, above `Scenario:`. A scenario runs without any. `@needs.NAME`, which a sentence names "
    "under *Tags*, has the scenario skipped where the machine lacks that; without it the scenario is red there. Write "
    "`@timed` with sentences about the STANDARD band, so that no other scenario starts beside it, and `@slow` where it "
    "takes more than 5 minutes. The engine (`@vllm`) is for `TAGS=@vllm` and for the report.",
)
WORDS = {
    "STANDARD": "The phase of a load before the first failure. Let it last 6 seconds or more, if something is "
    "compared with it: a band needs 30 requests in 3 seconds.",
    "OVERFLOW": "The phase of a load from the first failure until the last one is over; also a load of many more "
    "clients (a peak, a burst, a spike), which is a failure as well. A failure that is never undone counts as over "
    "one second after its proof.",
    "RECOVERY": "The phase of a load after the last failure: 8 seconds, or longer where a sentence says so.",
    "STANDARD band": "How long users may wait for their first token (of a unary answer: for its end), as STANDARD "
    "showed it. `m` is the median of STANDARD, `d` the step from there to the slowest 90th percentile of its "
    "seconds, 20 milliseconds at least. A second is in the band if its median is no more than `m + d`, its 90th "
    "percentile no more than `m + 4d`, and nobody in it goes without an answer. A phase as a whole is in the band if "
    "its median is no more than `m + d`, no more than one request in a hundred takes longer than `m + 4d` (one "
    "always may), and as many requests are good as in the worst second of STANDARD. docs/judging.md has the reasons.",
    "good": "A request with a whole answer that keeps the `objectives` of a YAML scenario, such as 200 milliseconds "
    "to the first token. Without objectives every whole answer is good.",
    "as fast as before the fault": "No more than twice as long as the slowest request that ended before the first "
    "fault, to the first token and to the end; a tenth of a second more than that one is always allowed.",
    "whole answer": "As many tokens as were asked for, one finish reason, one end, no error.",
    "clean error": "An HTTP error, or an error in the stream that client libraries raise; nothing looks like an "
    "answer.",
    "in flight": "Of a request: it is sent, and its answer has not ended.",
    "victim": "Who is hit by a fault, by what it is and not by its name: `the etcd leader`.",
    "proven": "The victim itself shows the fault. A fault that is not proven makes the scenario *inconclusive*, "
    "which says nothing about Dynamo.",
    "after 3 seconds": "When a fault strikes: `after 3 seconds` or `after 20 requests` of the load, `after 300 tokens` "
    "of the answer, `once OVERFLOW begins`, `once RECOVERY begins`. Without such words it strikes at once.",
    "mid-answer": "The victim has sent the first tokens of the answer, and the last are not there. `before the first "
    "token`: a worker has the request, and the client has nothing yet. Without such words that is not looked at.",
    "for 2 seconds": "How long a fault lasts. Without such words it lasts until a sentence undoes it, or to the end of "
    "the scenario.",
    "dropped": "Packets vanish, as when somebody pulls a cable: both sides wait. `rejected`: each packet is answered "
    "with an error, as by a firewall; new connections are refused at once, open ones wait. `reset`: open connections "
    "break at once, and new ones are refused. `lost`: a share of the packets vanishes, as with a bad cable.",
    "nobody notices": "Say what users would notice: `every request succeeds`, `in OVERFLOW the time to first token is "
    "in the STANDARD band`, `no client waits longer than 2 seconds for a token`, `no Dynamo process has exited`.",
    "its peers": "All workers except the victim. `the workers` says the same where the victim is no worker.",
    "the other members": "All etcd members except the victim. `etcd` says the same where the victim is no member.",
    "Dynamo": "As the other side of a cut: all frontends and workers except the victim.",
    "everybody else": "As the other side of a cut: frontends, workers, etcd and NATS, except the victim.",
    "comes back": "Something broken comes back in one of three ways. `for 2 seconds` in the sentence of the fault: "
    "by itself, after that time. A sentence, such as `the frontend returns`, `etcd returns`, `the hung worker "
    "resumes`, `the network is healed`, `the GPU is repaired`: when it is played. The setting `restart policy`: "
    "Dynamo's own frontends and workers are started again as soon as they end. Otherwise it stays broken to the end "
    "of the scenario.",
    "is restarted": "A crash (SIGKILL) and a new start at once, as one fault. `are restarted one after the other`, a "
    "rolling restart, shuts each worker down (SIGTERM), lets it finish, starts it again and waits until it is listed.",
    "the deployment serves": "The frontend lists all workers that run and no dead one, and a request succeeds. "
    "`requests succeed again` asks for less of the lists and more of the answers: four in a row, whoever is listed. "
    "`a new request succeeds` sends one request and asks nothing else.",
}
"""Word -> what it means in every sentence."""


def whole() -> str:
    """The scenario with a note above each step, as a feature file that may be copied.

    Raises:
        LookupError: there is none of this name, or it has more or fewer steps than there are notes.
    """
    found = next((each for _, each in scenarios() if each.name == WHOLE), None)
    if found is None or len(list(found.all_steps)) != len(NOTES):
        raise LookupError(
            f"no scenario {WHOLE!r} has as many steps as steps/writing/glossary.py has notes: {len(NOTES)}"
        )
    steps = iter(NOTES)
    lines = ["Feature: etcd fails", "  # tags: what it runs on, and what the machine must have"]
    lines += [f"  {' '.join(f'@{tag}' for tag in found.tags)}", f"  Scenario: {found.name}"]
    for line in as_text(found):
        if not line.strip().startswith("|"):
            lines.append(f"    # {next(steps)}")
        lines.append(f"  {line}")
    return "\n".join(lines)
