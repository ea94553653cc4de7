"""A run asks its target: an invented one says what scenarios are skipped for, what is no gap, what the doctor shows."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from support import targets
from support.contract.target import Capability, Need
from support.judge.judge import complaints
from support.judge.verdict import Verdict
from support.run import capabilities, doctor, launcher, selection
from support.run.runtime import Run
from support.settings import ROOT, TARGETS_AVAILABLE, Settings

WHERE = "features/x.feature:3"


class Moon:
    """A kind of target of its own: it has dust and no air, and knows of nothing that this machine has."""

    description = "rather far away"
    in_cells = real = False
    needs: Mapping[str, Need] = {
        "air": Need("air to breathe", "air", "propellers", "needs.air"),
        "dust": Need("dust", "dust", "footprints", "needs.dust"),
        "gpu": Need("a GPU on the moon", "GPU", "real engines", "gpu"),
    }

    def __init__(self, settings: Settings) -> None:
        self.asked: list[str] = []

    def capabilities(self, names: Iterable[str]) -> dict[str, Capability]:
        """It has dust."""
        self.asked += names
        return {name: Capability(name, name == "dust", f"looked for {name}") for name in names}

    def make(self, *_: Any) -> Any:
        """Nothing can be deployed there."""
        raise AssertionError("nobody deploys anything")


@pytest.fixture
def moon(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that name it."""
    monkeypatch.setitem(targets.KINDS, "moon", Moon)
    return Settings(target="moon")


def test_every_target_that_can_be_chosen_is_one() -> None:
    assert tuple(targets.KINDS) == TARGETS_AVAILABLE


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        (["needs.dust", "smoke"], ""),
        (["needs.dust", "needs.air"], "needs air to breathe: looked for air"),
        (["gpu"], "needs a GPU on the moon: looked for gpu"),
        (["needs.nftables"], "needs nftables: the target moon knows of none"),
    ],
)
def test_scenarios_are_skipped_for_what_the_target_lacks(
    moon: Settings, tmp_path: Path, tags: list[str], reason: str
) -> None:
    assert Run(moon, tmp_path).reason_to_skip(WHERE, tags) == reason


@pytest.mark.parametrize(
    ("lack", "allowed"),
    [("needs.air", True), ("needs.dust", False), ("gpu", True), ("needs.nftables", False), ("air", False), ("", False)],
)
def test_a_skip_is_no_gap_where_the_target_may_lack_what_it_lacks(moon: Settings, lack: str, allowed: bool) -> None:
    verdicts = [Verdict("F", "s", WHERE, [], word, 1.0, lack=lack) for word in ("passed", "skipped")]
    assert (complaints(verdicts, capabilities.allowed_skips(moon)) == []) is allowed


def test_a_run_asks_once(moon: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Moon(moon)
    monkeypatch.setitem(targets.KINDS, "moon", lambda _: kind)
    assert len({capabilities.lacking(WHERE, ["needs.air"], moon, tmp_path) for _ in range(3)}) == 1
    assert kind.asked == ["air"]


def test_a_tag_that_no_target_knows_is_refused(moon: Settings, tmp_path: Path) -> None:
    said = f"{WHERE}: no target knows the tag @needs.coffee; known are @needs.namespaces, @needs.nftables, "
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        Run(moon, tmp_path).reason_to_skip(WHERE, ["smoke", "needs.coffee"])
    assert {"@gpu", "@k8s", "@needs.air", "@needs.dust"} <= set(str(refused.value).partition("are ")[2].split(", "))


def test_the_launcher_starts_nothing_with_a_tag_that_no_target_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "s.py").write_text('from behave import step\n\n@step("it works")\ndef works(_): pass\n')
    (tmp_path / "behave.ini").touch()
    (tmp_path / "x.feature").write_text("Feature: F\n  @needs.coffee\n  Scenario: s\n    Given it works\n")
    monkeypatch.chdir(tmp_path)
    assert launcher.main(["acceptance", "--features", "x.feature"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.partition(";")[0]) == ("", "error: x.feature:3: no target knows the tag @needs.coffee")
    assert not (tmp_path / "reports").exists()


def test_every_tag_in_the_features_names_what_a_target_knows() -> None:
    found = selection.enumerate_scenarios(ROOT, [], ["not @no.such.tag"])
    tags = {need.tag for each in found for need in capabilities.needed(each.location, each.tags, Settings())}
    named = ("namespaces", "nftables", "tbf", "kmsg", "strain", "drains")
    assert tags == {"k8s", *(f"needs.{name}" for name in named)}


def test_the_doctors_table_is_that_of_the_target(moon: Settings) -> None:
    rows = {row.what: row for row in doctor.rows(moon)}
    assert rows["target"].found == "moon: rather far away"
    assert rows["air"] == ("air", "no: looked for air", "propellers", "@needs.air")
    assert rows["dust"] == ("dust", "yes: looked for dust", "footprints", "")
    assert rows["GPU"].skipped == "@gpu"
    assert not {"nftables", "namespaces", "KUBECONFIG"} & set(rows)
    assert not {"etcd", "NATS", "Dynamo 1.6.1"} & set(rows), "no Dynamo runs there"


def test_the_doctor_says_what_this_machine_can() -> None:
    rows = {row.what: row for row in doctor.rows(Settings())}
    assert rows["target"].found == "local: this machine"
    assert [*rows][-12:] == [
        *(
            "root",
            "namespaces",
            "nftables",
            "tbf",
            "netem",
            "kernel log",
            "cgroups",
            "strained GPUs",
            "GPU",
            "KUBECONFIG",
            "pods",
            "drains",
        ),
    ]
    assert rows["KUBECONFIG"][1:] == ("no: KUBECONFIG is not set", "the target kubernetes", "")
    assert rows["pods"][1::2] == ("no: only the target kubernetes has that", "@k8s")
    assert rows["NATS"].skipped == rows["Node.js"].skipped == ""
    assert rows["etcd"].found.startswith("3.")


def test_a_program_that_does_not_work_skips_what_needs_it(tmp_path: Path) -> None:
    broken = tmp_path / "etcd"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    rows = {row.what: row for row in doctor.rows(Settings(etcd_binary=broken))}
    assert rows["etcd"].skipped == "everything"
    assert str(broken) in rows["etcd"].found


def test_the_columns_line_up() -> None:
    text = doctor.table([doctor.Row("a", "found it", "b", ""), doctor.Row("longer", "no", "much", "all")])
    assert text.splitlines() == [
        "what    found     needed for  therefore skipped",
        "a       found it  b           -",
        "longer  no        much        all",
    ]
