"""Words and tables of the sentences: right ones are understood, wrong ones named with the right ones."""

from dataclasses import fields, replace
from typing import Any, cast

import pytest
from behave.matchers import parse
from behave.model import Table

from support.faults.gpu import Overheat
from support.faults.processes import Hang, Terminate
from support.requests.plan import Load
from support.rows import COLUMNS, FAILURES, columns, failures
from support.scenarios import Failure
from support.scenarios.model import TRIGGERS
from support.scenarios.model import TYPES as FAILURE_TYPES
from support.words import REQUEST_OPTIONS, SHAPE_OPTIONS, TYPES, check_settings, options, shape


@pytest.mark.parametrize(
    ("word", "text", "value"),
    [
        ("Fate", "is shut down", Terminate),
        ("Fate", "hangs", Hang),
        ("Victim", "the etcd leader", "etcd_leader"),
        ("Begin", "after 3 seconds ", {"trigger_after_seconds": 3.0}),
        ("Begin", "", {}),
        ("Lasting", " for 500 milliseconds", 0.5),
        ("Lasting", "", None),
        ("Every", " every 5 seconds", 5.0),
        ("Every", "", None),
        ("Moment", " mid-answer", "mid-answer"),
        ("FollowUps", "", False),
        ("FollowUps", " with its usual follow-up errors", True),
        ("Drawn", "faults", ()),
        ("Drawn", "crashes and GPU errors", ("process_kill", "xid")),
        ("YesNo", "no", False),
        ("Strain", "overheats", Overheat),
        ("Way", "resets", "reset"),
        ("Mode", "unary", False),
        ("Count", "20", 20),
        ("Tally", "0", 0),
        ("Percent", "100", 100),
        ("Share", "99.5", 99.5),
        ("Fraction", "0.5", 0.5),
        ("Xid", "79", 79),
        ("Time", "2 seconds", 2.0),
        ("Time", "1 second", 1.0),
        ("Time", "500 milliseconds", 0.5),
        ("Time", "2 minutes", 120.0),
        ("Time", "a minute", 60.0),
        ("Time", "a full minute", 60.0),
        ("Time", "half a minute", 30.0),
        ("Time", "ten seconds", 10.0),
        ("Times", "twice", 2),
        ("Times", "five times", 5),
        ("Times", "12 times", 12),
        ("Trigger", "after a minute", {"trigger_after_seconds": 60.0}),
        ("Trigger", "after 2 minutes", {"trigger_after_seconds": 120.0}),
        ("Engine", "ruler", "ruler"),
        ("Trigger", "after 3 seconds", {"trigger_after_seconds": 3.0}),
        ("Trigger", "after 1 request", {"trigger_after_requests": 1}),
        ("Trigger", "after 500 milliseconds", {"trigger_after_seconds": 0.5}),
        ("Trigger", "after 300 tokens", {"trigger_after_tokens": 300}),
        ("Trigger", "once RECOVERY begins", {"trigger_in_phase": "RECOVERY"}),
    ],
)
def test_right_words(word: str, text: str, value: Any) -> None:
    assert TYPES[word](text) == value


@pytest.mark.parametrize(
    ("word", "text", "message"),
    [
        ("Engine", "tgi", "unknown engine 'tgi'; expected one of: vllm, sglang, trtllm, ruler"),
        ("Fate", "explodes", "expected one of: crashes, is shut down, hangs, is restarted"),
        ("Victim", "the etcd leeder", "unknown victim 'the etcd leeder'; expected one of: .*; write the etcd leader"),
        (
            "Moment",
            " in the middle",
            "unknown moment 'in the middle'; expected one of: mid-answer, before the first",
        ),
        ("Moment", " after 50 tokens", "; write after 50 tokens as the first words of the sentence"),
        ("Drawn", "crashes and burns", "unknown kind of random faults 'burns'; expected one of: faults, crashes"),
        ("Lasting", " for 5", "'5' has no unit; .*; write 5 seconds"),
        ("Count", "-3", "'-3' is not a count; expected a whole number, 1 or more"),
        ("Count", "0", "'0' is not a count; expected a whole number, 1 or more"),
        ("Tally", "-1", "'-1' is not a count; expected a whole number, 0 or more"),
        ("Percent", "101", "'101' is not a percentage; expected a whole number, 1 to 100"),
        ("Share", "100.5", "'100.5' is not a percentage; expected a number, more than 0 and up to 100"),
        ("Share", "0", "'0' is not a percentage"),
        ("Fraction", "1.5", "'1.5' is not a fraction"),
        ("Xid", "7", "unknown XID 7; expected one of: 13, "),
        ("Time", "0 seconds", "'0 seconds' is not long enough; expected more than 0 seconds"),
        ("Time", "-2 seconds", "'-2 seconds' is not long enough"),
        ("Time", "10", "'10' has no unit; expected one of: second, .*; write 10 seconds"),
        ("Time", "2 mins", "'2 mins' has no unit that is known; .*; write 120 seconds"),
        ("Time", "half a sec", "; write 0.5 seconds"),
        ("Time", "two weeks", "'two weeks' has no unit that is known"),
        ("Times", "once", "'once' is not how many times as many; expected such as twice, five times or 12 times"),
        ("Times", "1 times", "'1 times' is not how many"),
        ("Times", "fife times", "; write five times"),
        ("Time", "5s", "; write 5 seconds"),
        ("Time", "3 secconds", "; write 3 seconds"),
        ("Time", "3 hurdles", "'3 hurdles' has no unit that is known; expected one of: second, [^;]*$"),
        ("Trigger", "after 20 requsts", "; write after 20 requests"),
        ("Trigger", "after 2 mins", "; write 120 seconds"),
        ("Trigger", "after 20", "'after 20' has no unit; .*; write after 20 seconds"),
        ("Plane", "udp", "expected one of: tcp, nats"),
        ("Trigger", "once OVERFLOWS begins", "unknown phase 'OVERFLOWS'; .*; write OVERFLOW"),
        ("Trigger", "after lunch time", "is not a trigger; expected such as after 3 seconds, after 20 requests"),
        ("File", "features/none.yaml", "there is no file 'features/none.yaml'"),
        ("Api", "responses", "expected one of: completions, chat"),
    ],
)
def test_wrong_words(word: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TYPES[word](text)


def test_tables() -> None:
    rows = [("migration limit", "0"), ("lease", "5 seconds"), ("health checks", "yes"), ("speed", "0.5")]
    read = {"migration_limit": 0, "lease_seconds": 5.0, "health_checks": True, "speed": 0.5}
    assert options(rows, SHAPE_OPTIONS) == read
    leaving = options([("leaves by", "handing over"), ("grace period", "1 second")], SHAPE_OPTIONS)
    assert leaving == {"leaving": "handing over", "grace_seconds": 1.0}
    assert options(None, SHAPE_OPTIONS) == {}
    assert options([("usage", "yes"), ("choices", "2")], REQUEST_OPTIONS) == {"usage": True, "n": 2}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ("colour", "red"),
            "unknown setting 'colour' in the table; expected one of: request plane, etcd members, discovery",
        ),
        (("migration limit", "many"), "migration limit: 'many' is not a count"),
        (("leaves by", "the window"), "leaves by: unknown way to leave .*expected one of: draining, handing over"),
        (("restart policy", "Perhaps"), "restart policy: .*expected one of: Never, OnFailure, Always"),
        (("health checks", "maybe"), "health checks: .*expected one of: yes, no"),
        (("lease", "soon"), "lease: 'soon' is not a time; expected such as 2 seconds or 500 milliseconds"),
    ],
)
def test_wrong_tables(row: tuple[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options([row], SHAPE_OPTIONS)


def table(text: str) -> Table:
    heading, *rows = ([cell.strip() for cell in line.split("|")] for line in text.splitlines())
    return Table(heading, rows=rows)


def test_failures_in_a_table() -> None:
    text = (
        "failure|when|for|packets are\nnetwork partition|after 3 tokens|2 seconds|reset\nhangs|once OVERFLOW begins||"
    )
    cut = Failure("network_partition", trigger_after_tokens=3, duration_seconds=2.0, mode="reset")
    assert failures(table(text)) == [cut, Failure("hang", trigger_in_phase="OVERFLOW")]
    text = "failure|target|when|only|follow-up errors|seed|kinds|every|for\n"
    text += "network partition|the etcd leader|after 1 token|from it|||||\nxid|a worker|after 1 token||yes||||\n"
    text += "random||after 1 token|||7|crashes|5 seconds|60 seconds"
    one_way = Failure("network_partition", "etcd_leader", trigger_after_tokens=1, direction="from")
    error = Failure("xid", "any_worker", trigger_after_tokens=1, sequence=True)
    drawn = Failure("random", trigger_after_tokens=1, duration_seconds=60.0, seed=7)
    assert failures(table(text)) == [one_way, error, replace(drawn, kinds=("process_kill",), every_seconds=5.0)]
    for wrong, message in (
        (
            "failure|who|when\nhangs|x|after 1 token",
            "unknown setting 'who' in the table; expected one of: failure, target",
        ),
        ("failure|when\nhangs|", r"a row of the table has no failure, or not when"),
        ("failure|when\nbang|after 1 token", "unknown failure 'bang'"),
    ):
        with pytest.raises(ValueError, match=message):
            failures(table(wrong))
    with pytest.raises(ValueError, match="the sentence has no table"):
        failures(None)


def test_clients_that_come_in_a_table() -> None:
    text = "failure|when|for|clients|answers each|tokens|prompt words\n"
    text += "overload|after 3 seconds||40|3|200|\noverload|after 1 second|20 seconds|five times|||\n"
    text += "token overflow|after 3 seconds||2|||4096"
    assert failures(table(text)) == [
        Failure("overload", trigger_after_seconds=3.0, load=Load(40, 3, max_tokens=200, prompt_words=400)),
        Failure("overload", trigger_after_seconds=1.0, duration_seconds=20.0, times=5),
        Failure("token_overflow", trigger_after_seconds=3.0, load=Load(2, 1, max_tokens=10, prompt_words=4096)),
    ]
    load = Load(4, None, 240.0, max_tokens=40)
    assert failures(table(text))[1].extra(load) == replace(load, clients=16, duration_seconds=20.0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("overload||40|||", "a number of clients needs something in the columns 'answers each' and 'tokens'"),
        ("overload|5 seconds|40|3|200|", "'overload' of a number of clients takes nothing in the column 'for'"),
        ("overload|5 seconds|twice|3||", "ask for the same answers; write those cells empty"),
        ("overload||twice|||", "clients that are so many times as many need something in the column 'for'"),
        ("overload|||3|200|", "'overload' needs something in the column 'clients'"),
        ("token overflow||twice|||99", "with prompt words the column 'clients' has a number, such as 2"),
        ("token overflow||2|||", "'token overflow' needs something in the column 'prompt words'"),
        ("hangs||2|||", "'hangs' takes nothing in the column 'clients'; expected one of: failure, when, target, for$"),
        ("random|9 seconds||||", "'random' needs something in the column 'seed'"),
        ("overload||no|||", "clients: 'no' is not a count"),
    ],
)
def test_rows_that_make_no_sense(row: str, message: str) -> None:
    heading = "failure|for|clients|answers each|tokens|prompt words|when"
    with pytest.raises(ValueError, match=message):
        failures(table(f"{heading}\n{row}|after 1 second"))


def test_every_failure_has_its_columns() -> None:
    every = [columns(each) for each in FAILURE_TYPES]
    assert {name for needed, taken in every for name in (*needed, *taken)} == {*COLUMNS}
    assert columns("xid") == (("failure", "when"), ("target", "for", "xid", "follow-up errors"))
    assert columns("rolling_restart") == (("failure", "when"), ())


def test_a_check_names_its_bounds() -> None:
    text = "setting|value\nat least|99\nlongest outage seconds|5"
    assert check_settings("high_availability", table(text)) == {"at_least": 99.0, "longest_outage_seconds": 5.0}
    assert check_settings("all_accounted", None) == {}
    in_a_phase = table("setting|value\nat least|99\nphase|OVERFLOW")
    assert check_settings("success_rate", in_a_phase) == {"at_least": 99.0, "phase": "OVERFLOW"}
    assert check_settings("standard_band", table("setting|value\nphase|OVERFLOW")) == {"phase": "OVERFLOW"}
    assert check_settings("overload_rejection", table("setting|value\nstatus|529")) == {"status": 529}
    assert check_settings("overlong_refused", table("setting|value\nstatuses|400, 413")) == {"statuses": (400, 413)}
    with pytest.raises(ValueError, match="the checks for high availability need a table below with at least, longest"):
        check_settings("high_availability", None)
    with pytest.raises(ValueError, match="unknown setting 'luck'"):
        check_settings("high_availability", table("setting|value\nluck|1"))
    with pytest.raises(ValueError, match="status: '9' is not an HTTP status; expected such as 503"):
        check_settings("overload_rejection", table("setting|value\nstatus|9"))
    with pytest.raises(ValueError, match="phase: unknown phase 'overflow'"):
        check_settings("standard_band", table("setting|value\nphase|overflow"))


def test_a_deployment_is_what_a_sentence_and_its_table_say() -> None:
    assert shape({"workers": 2}, [("etcd members", "3")]) == {"workers": 2, "etcd_members": 3}
    with pytest.raises(ValueError, match="the sentence says 'etcd members', and so does its table; write it once"):
        shape({"workers": 2, "etcd_members": 3}, [("etcd members", "3")])


def test_all_that_a_sentence_can_say_of_a_failure_a_table_can_and_the_other_way_round() -> None:
    said = {field for _, (field, _) in COLUMNS.items() if field}
    own = {each.name for each in fields(cast(Any, Failure))}
    assert own - said == {*TRIGGERS, "load", "times"}, "the column `when` has the triggers, `clients` says who comes"
    assert TYPES["Victim"].words == COLUMNS["target"][1].words  # type: ignore[attr-defined]
    assert {*TYPES["Fate"].words, *TYPES["Strain"].words} <= {*FAILURES}  # type: ignore[attr-defined]
    assert set(FAILURES.values()) == {*FAILURE_TYPES}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the etcd leader crashes", "the etcd leader"),
        ("the etcd leader explodes", "the etcd leader"),
        ("the etcd leeder crashes", "the etcd leeder"),
        ("packets between the wroker and the frontend", "the wroker"),
        ("the client closes the connection", ""),
        ("a new worker starts", ""),
        ("a workers crash", ""),
    ],
)
def test_where_a_victim_is_meant_and_where_it_is_not(text: str, found: str) -> None:
    """A sentence may begin with one; it may not take the sentences of others for its own."""
    forms = ("{victim:Victim} {kind:Fate}", "packets between {victim:Victim} and {side:Side}")
    reads = {name: _as_it_is(TYPES[name].pattern) for name in ("Victim", "Fate", "Side")}  # type: ignore[attr-defined]
    seen = [match["victim"] for form in forms if (match := parse.parse(form, text, reads))]
    assert seen == ([found] if found else [])


def _as_it_is(pattern: str) -> Any:
    return parse.with_pattern(pattern)(lambda text: text)
