import re
from pathlib import Path

import pytest

from support import releases, settings
from support.settings import Settings


@pytest.fixture(autouse=True)
def no_file_of_this_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(settings, "FILE", tmp_path / "settings.toml")


def test_defaults_are_the_default_release_on_the_local_target() -> None:
    loaded = Settings.load({}, {})
    assert (loaded.dynamo, loaded.target, loaded.request_plane, loaded.cells) == ("1.6.1", "local", "tcp", "auto")
    assert loaded.jobs >= 2
    assert [loaded.log_dir, loaded.etcd_binary, loaded.frontend_url] == [None, None, None]


def test_the_default_release_is_the_tables() -> None:
    assert Settings.dynamo == releases.default()


def test_file_gives_way_to_environment_and_that_to_userdata(tmp_path: Path) -> None:
    settings.FILE.write_text('dynamo = "1.2.1"\njobs = 3\ncells = "off"\n')
    loaded = Settings.load({"dynamo": "1.5.1"}, {"DYNAMO": "1.4.2", "JOBS": "5"})
    assert (loaded.dynamo, loaded.jobs, loaded.cells) == ("1.5.1", 5, "off")
    assert loaded.sources == {"dynamo": "-D dynamo", "jobs": "environment JOBS", "cells": "settings.toml"}


def test_another_file_can_be_named(tmp_path: Path) -> None:
    settings.FILE.write_text("jobs = 3\n")
    other = tmp_path / "other.toml"
    other.write_text('request_plane = "nats"\n')
    loaded = Settings.load({"settings": str(other)}, {})
    assert loaded.request_plane == "nats"
    assert loaded.jobs == settings.default_jobs()


def test_an_empty_variable_is_no_setting() -> None:
    assert Settings.load({}, {"DYNAMO": "", "LOG_DIR": ""}) == Settings()


@pytest.mark.parametrize(
    ("userdata", "words"),
    [
        ({"dynamo": "0.9.9"}, ["0.9.9", "1.4.2", "1.6.1", "-D dynamo"]),
        ({"dinamo": "1.6.1"}, ["'dinamo'", "dynamo", "log_dir", "-D"]),
        ({"namespace": "Team A"}, ["namespace", "'Team A'", "Kubernetes namespace"]),
        ({"discovery": "dns"}, ["'dns'", "auto, etcd, kubernetes"]),
        ({"target": "attached"}, ["'attached'", "not available in this version", "local"]),
        ({"target": "moon"}, ["'moon'", "local, fake, kubernetes, attached"]),
        ({"request_plane": "udp"}, ["'udp'", "tcp, nats"]),
        ({"cells": "maybe"}, ["'maybe'", "auto, on, off"]),
        ({"keep": "everything"}, ["'everything'", "nothing, failed"]),
        ({"jobs": "-1"}, ["jobs", "'-1'", "from 1"]),
        ({"jobs": "0"}, ["jobs", "'0'", "from 1"]),
        ({"jobs": "many"}, ["jobs", "'many'", "whole number"]),
        ({"log_dir": ""}, ["log_dir", "empty"]),
        ({"log_dir": "Makefile"}, ["log_dir", "'Makefile'", "not a folder"]),
        ({"etcd_binary": "/nowhere/etcd"}, ["etcd_binary", "/nowhere/etcd", "no such program"]),
        ({"node_binary": "requirements.txt"}, ["node_binary", "requirements.txt", "no such program"]),
        ({"frontend_url": "frontend:8000"}, ["frontend_url", "frontend:8000", "http://"]),
        ({"settings": "/nowhere.toml"}, ["/nowhere.toml", "cannot read"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_right(userdata: dict[str, str], words: list[str]) -> None:
    with pytest.raises(ValueError, match=re.escape(words[0])) as raised:
        Settings.load(userdata, {})
    assert [word for word in words if word not in str(raised.value)] == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("job = 3\n", ["'job'", "settings.toml", "jobs"]),
        ("jobs = [3]\n", ["jobs", "[3]", "settings.toml"]),
        ("jobs = true\n", ["jobs", "True", "settings.toml"]),
        ("jobs =\n", ["settings.toml", "cannot read"]),
    ],
)
def test_a_wrong_file_is_named_with_what_is_right(content: str, words: list[str]) -> None:
    settings.FILE.write_text(content)
    with pytest.raises(ValueError, match=re.escape(words[0])) as raised:
        Settings.load({}, {})
    assert [word for word in words if word not in str(raised.value)] == []


def test_programs_are_found_on_the_path_as_well() -> None:
    assert Settings.load({"etcd_binary": "sh"}, {}).etcd_binary in (Path("/bin/sh"), Path("/usr/bin/sh"))


def test_the_description_shows_each_setting_and_its_source_but_no_secret() -> None:
    url = "https://me:hunter2@frontend:8000/v1?token=swordfish"
    text = Settings.load({"frontend_url": url, "jobs": "7"}, {"KUBECONFIG": "/home/me/kube"}).describe()
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines()[1:]}
    assert list(lines) == list(settings.NAMES)
    assert lines["jobs"] == ["7", "-D", "jobs"]
    assert lines["kubeconfig"] == ["/home/me/kube", "environment", "KUBECONFIG"]
    assert lines["target"] == ["local", "default"]
    assert lines["frontend_url"][0] == "https://***@frontend:8000/v1?***"
    assert "hunter2" not in text
    assert "swordfish" not in text


def test_a_secret_in_a_bad_url_is_not_shown_either() -> None:
    with pytest.raises(ValueError, match=r"\*\*\*") as raised:
        Settings.load({"frontend_url": "ftp://me:hunter2@frontend"}, {})
    assert "hunter2" not in str(raised.value)
