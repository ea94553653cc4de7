"""The release table, and shapes that a release can or cannot have."""

from dataclasses import fields
from typing import Any

import pytest

from support import releases
from support.contract.shape import Shape
from support.errors import Unsupported


def test_every_release_has_every_fact() -> None:
    for version in releases.known():
        release = releases.get(version)
        assert {field.name for field in fields(release)} == {"version", *releases._table()["facts"]}
        assert "ruler" in release.engines
        assert set(release.disaggregated_engines) <= set(release.engines)


def test_default_is_the_newest() -> None:
    assert releases.default() == releases.known()[-1]


@pytest.mark.parametrize(
    ("version", "fact", "value"),
    [
        ("1.0.2", "lease_seconds", 10),
        ("1.5.1", "lease_seconds", 10),
        ("1.6.0", "lease_seconds", 30),
        ("1.2.0.post1", "drain_deadline", "DYN_WORKER_GRACEFUL_SHUTDOWN_TIMEOUT"),
        ("1.3.0.post1", "drain_deadline", "DYN_RUNTIME_GRACEFUL_SHUTDOWN_TIMEOUT_SECS"),
        ("1.3.1", "nats_always", True),
        ("1.4.0", "nats_always", False),
    ],
)
def test_facts_change_with_the_release_that_changed_them(version: str, fact: str, value: Any) -> None:
    assert getattr(releases.get(version), fact) == value


def test_unknown_release_is_answered_with_the_known() -> None:
    with pytest.raises(ValueError, match=r"unknown Dynamo release '2\.0'; known: 1\.0\.2, .*1\.6\.1"):
        releases.get("2.0")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"engine": "tgi"}, "engine is 'tgi'; expected one of vllm, sglang, trtllm, ruler"),
        ({"request_plane": "udp"}, "request_plane is 'udp'; expected one of tcp, nats"),
        ({"workers": -1}, "workers is -1; expected a whole number, 0 or more"),
        ({"migration_limit": -2}, "migration_limit is -2"),
        ({"sequence_cap": 0}, "sequence_cap is 0; expected a whole number, 1 or more"),
        ({"max_model_len": 0}, "max_model_len is 0; expected a whole number, 1 or more"),
        ({"engine": "ruler", "max_model_len": 9}, "the ruler engine has no max_model_len"),
        ({"speed": 0.0}, "speed is 0.0; expected a number, more than 0"),
        ({"restart_policy": "Perhaps"}, "restart_policy is 'Perhaps'; expected one of Never, OnFailure, Always"),
        ({"router_mode": "best"}, "router_mode is 'best'; expected one of round-robin, random, least-loaded, kv"),
        ({"etcd_members": 0}, "etcd_members is 0; expected 1 to 7, best 1, 3 or 5"),
        ({"frontends": 0}, "frontends is 0; expected a whole number, 1 or more"),
        ({"etcd_delay_seconds": -1.0}, "etcd_delay_seconds is -1.0; expected a number, 0 or more"),
        ({"leaving": "slowly"}, "leaving is 'slowly'; expected one of draining, handing over"),
        ({"engine": "vllm", "leaving": "handing over"}, "simulated vllm workers always drain on shutdown"),
        ({"grace_seconds": 1.0}, "grace_seconds is 1, but workers that drain have none"),
        ({"leaving": "handing over", "grace_seconds": -1.0}, "grace_seconds is -1.0; expected a number, 0 or more"),
        ({"drain_seconds": -1.0}, "drain_seconds is -1.0; expected a number, 0 or more"),
        ({"engine": "ruler", "prefill_workers": 1}, "the ruler engine has no prefill workers"),
    ],
)
def test_shapes_that_make_no_sense_are_refused(shape: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Shape(**shape).check(releases.get("1.6.1"))


@pytest.mark.parametrize(
    ("version", "shape", "words"),
    [
        ("1.2.1", {"engine": "trtllm"}, "Dynamo 1.2.1 has no simulated trtllm"),
        ("1.0.2", {"sequence_cap": 10}, "no cap on the length"),
        ("1.2.1", {"engine": "vllm", "max_model_len": 10}, "simulates no limit on the length"),
        ("1.1.1", {"drain_seconds": 1.0}, "no drain deadline"),
        ("1.0.2", {"stream_timeout_seconds": 1.0}, "no timeout for silent workers"),
        ("1.6.1", {"engine": "trtllm", "prefill_workers": 1}, "simulates no disaggregated trtllm"),
    ],
)
def test_what_a_release_cannot_do_is_a_skip_with_a_reason(version: str, shape: dict[str, Any], words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        Shape(**shape).check(releases.get(version))


def test_an_even_count_of_etcd_members_is_allowed_and_warned_about() -> None:
    assert [Shape(etcd_members=count).warnings() for count in (1, 3, 5)] == [[], [], []]
    [words] = Shape(etcd_members=4).warnings()
    assert "4 members, an even count, survives the loss of 1, no more than one of 3; choose 3 or 5" in words


def test_a_shape_says_what_it_is() -> None:
    assert Shape(engine="vllm").describe() == "2 simulated vllm workers over tcp, migration limit 3"
    shape = Shape(engine="sglang", workers=1, prefill_workers=2, request_plane="nats")
    assert shape.describe() == "2 prefill and 1 decode worker (simulated sglang) over nats, migration limit 3"
