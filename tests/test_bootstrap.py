"""Bootstrap's promises, on environments that cost nothing to make."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from support.run import bootstrap
from support.run.bootstrap import BootstrapError, Environment, Workshop
from tests.patience import PATIENCE


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which the part ``suite`` is a folder with one link to a program, made at each call of ``build``."""
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "ENVIRONMENTS", tmp_path / ".envs")
    (tmp_path / "python-1").touch()
    _use(monkeypatch, tmp_path)
    return tmp_path


def _use(monkeypatch: pytest.MonkeyPatch, checkout: Path, contents: str = "a==1", fail: bool = False) -> None:
    folder = checkout / ".venv"

    def build(workshop: Workshop) -> None:
        assert not folder.exists()
        folder.mkdir()
        if fail:
            raise BootstrapError("no network")
        (folder / "python").symlink_to(checkout / "python-1")
        with (checkout / "made").open("a") as made:
            made.write("x")

    environment = Environment("the suite's environment", folder, contents, folder / "python", build)
    monkeypatch.setattr(bootstrap, "_environment", lambda part, dynamo: environment)


def _times_made(checkout: Path) -> int:
    return len((checkout / "made").read_text())


def test_a_second_run_makes_nothing(checkout: Path) -> None:
    assert bootstrap.ensure(["suite"]) == ["the suite's environment"]
    assert bootstrap.ensure(["suite"]) == []
    assert _times_made(checkout) == 1


def test_a_finished_checkout_is_only_read(checkout: Path) -> None:
    bootstrap.ensure(["suite"])
    shutil.rmtree(checkout / ".envs")
    assert bootstrap.ensure(["suite"]) == []
    assert not (checkout / ".envs").exists()


def test_other_requirements_make_it_anew(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap.ensure(["suite"])
    _use(monkeypatch, checkout, contents="a==2")
    assert bootstrap.ensure(["suite"])
    assert _times_made(checkout) == 2


def test_what_broke_off_is_made_anew(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, checkout, fail=True)
    with pytest.raises(BootstrapError, match="no network"):
        bootstrap.ensure(["suite"])
    assert (checkout / ".venv").exists()
    assert not (checkout / ".envs" / ".tmp").exists()
    _use(monkeypatch, checkout)
    assert bootstrap.ensure(["suite"])
    assert bootstrap.ensure(["suite"]) == []


def test_an_upgraded_python_makes_it_anew(checkout: Path) -> None:
    bootstrap.ensure(["suite"])
    (checkout / "python-2").touch()
    (checkout / ".venv" / "python").unlink()
    (checkout / ".venv" / "python").symlink_to(checkout / "python-2")
    assert bootstrap.ensure(["suite"])


def test_a_link_in_its_place_is_replaced_and_its_target_left(checkout: Path) -> None:
    elsewhere = checkout / "elsewhere"
    elsewhere.mkdir()
    (checkout / ".venv").symlink_to(elsewhere)
    (elsewhere / "precious").touch()
    bootstrap.ensure(["suite"])
    assert not (checkout / ".venv").is_symlink()
    assert (elsewhere / "precious").exists()


SCRIPT = """
    import os, subprocess, sys, time
    from pathlib import Path
    from support.run import bootstrap
    root = Path(sys.argv[1])
    bootstrap.ROOT, bootstrap.ENVIRONMENTS = root, root / ".envs"
    folder = root / ".venv"
    def build(workshop):
        folder.mkdir()
        wait = "touch started; while [ ! -e go ]; do sleep 0.01; done; echo x >> made; ln -s /bin/sh .venv/python"
        workshop.run("waiting", ["sh", "-c", wait], os.environ, root)
    environment = bootstrap.Environment("e", folder, "a==1", folder / "python", build)
    bootstrap._environment = lambda part, dynamo: environment
    bootstrap.ensure(["suite"])
"""


def _start(root: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(root)]
    return subprocess.Popen(argv, cwd=bootstrap.ROOT, stdout=subprocess.PIPE, text=True)


def _wait_for_file(file: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not file.exists():
        assert time.monotonic() < deadline, f"{file.name} did not come"
        time.sleep(0.01)


def test_two_at_once_make_it_once(tmp_path: Path) -> None:
    first = _start(tmp_path)
    _wait_for_file(tmp_path / "started")
    second = _start(tmp_path)
    assert second.stdout is not None
    assert "waiting for another bootstrap" in second.stdout.readline()
    (tmp_path / "go").touch()
    assert first.wait(PATIENCE) == second.wait(PATIENCE) == 0
    assert (tmp_path / "made").read_text() == "x\n"


def test_one_that_is_killed_is_waited_for_until_its_installer_has_ended_and_then_replaced(tmp_path: Path) -> None:
    first = _start(tmp_path)
    _wait_for_file(tmp_path / "started")
    os.kill(first.pid, signal.SIGKILL)
    first.wait(PATIENCE)
    second = _start(tmp_path)
    assert second.stdout is not None
    assert "waiting for another bootstrap" in second.stdout.readline()
    (tmp_path / "go").touch()
    assert second.wait(PATIENCE) == 0
    assert (tmp_path / "made").read_text() == "x\nx\n"
    assert (tmp_path / ".venv" / bootstrap.STAMP).exists()


def test_a_failed_installer_is_quoted(checkout: Path) -> None:
    with bootstrap._locked() as lock:
        workshop = Workshop(lock)
        with pytest.raises(BootstrapError) as raised:
            workshop.run("npm", ["sh", "-c", "echo no route to host >&2; exit 7"], os.environ, checkout)
    assert str(raised.value) == "npm failed with exit status 7; last lines:\nno route to host"


@pytest.mark.parametrize("version", ["", "1.6", "../1.6.1", "1.6.1/..", "latest", "1.6.1; rm"])
def test_what_is_no_release_is_refused(version: str) -> None:
    with pytest.raises(BootstrapError, match="expected a release such as"):
        bootstrap.ensure(["dynamo"], version)


@pytest.mark.parametrize("version", ["1.6.1", "1.2.0.post1", "1.7.0rc1"])
def test_what_may_be_a_release_gets_an_environment_of_its_own(version: str) -> None:
    assert bootstrap._environment("dynamo", version).folder.name == f"dynamo-{version}"


def _pip_conf(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))


def test_pips_settings_are_read_in_pips_order(tmp_path: Path) -> None:
    def read(**more: str) -> dict[str, str]:
        return bootstrap.pip_settings({"HOME": str(tmp_path), **more}, str(tmp_path / "prefix"), str(tmp_path / "etc"))

    _pip_conf(tmp_path / "etc/xdg/pip/pip.conf", "[global]\nproxy = a\ntimeout = 0\n")
    _pip_conf(tmp_path / "etc/pip.conf", "[global]\ntimeout = 1\ncert = global\n")
    _pip_conf(tmp_path / ".config/pip/pip.conf", "[global]\ntimeout = 2\nretries = 2\n[install]\ncert = install\n")
    _pip_conf(tmp_path / "prefix/pip.conf", "[global]\nretries = 3\nindex_url = site\n")
    strongest = {"proxy": "a", "timeout": "2", "cert": "install", "retries": "3", "index-url": "env"}
    assert read(PIP_INDEX_URL="env") == strongest
    # a file that is named is stronger than the site's and takes the place of the user's
    _pip_conf(tmp_path / "own.conf", "[global]\nindex-url = own\n")
    named = read(PIP_CONFIG_FILE=str(tmp_path / "own.conf"))
    assert (named["index-url"], named["timeout"], named["cert"]) == ("own", "1", "global")
    assert read(PIP_CONFIG_FILE=os.devnull) == {"config-file": os.devnull}


def test_uv_is_told_what_pip_is_told(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    told = bootstrap.uv_environment(
        {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": "https://index/simple",
            "PIP_EXTRA_INDEX_URL": "https://one/simple\nhttps://two/simple",
            "PIP_FIND_LINKS": f"{wheels} /nowhere https://links/",
            "PIP_CERT": "/certs.pem",
            "PIP_TIMEOUT": "99",
            "PIP_TRUSTED_HOST": "index",
        }
    )
    assert {name: value for name, value in told.items() if not name.startswith("PIP_")} == {
        "UV_DEFAULT_INDEX": "https://index/simple",
        "UV_INDEX": "https://one/simple https://two/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": f"{wheels},https://links/",
        "SSL_CERT_FILE": "/certs.pem",
        "UV_HTTP_TIMEOUT": "99",
        "UV_INSECURE_HOST": "index",
    }


def test_what_uv_is_told_already_stays() -> None:
    told = bootstrap.uv_environment(
        {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "https://pip", "UV_DEFAULT_INDEX": "https://uv"}
    )
    assert told["UV_DEFAULT_INDEX"] == "https://uv"


def test_an_old_python_is_named_with_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit, match=r"Python 3\.9, but 3\.11 or newer is needed"):
        bootstrap.main([])


def test_a_folder_that_cannot_be_written_is_named(checkout: Path) -> None:
    (checkout / ".envs").touch()
    with pytest.raises(BootstrapError, match=r"cannot write to .*\.envs"):
        bootstrap.ensure(["suite"])


def test_a_python_without_any_installer_is_named_with_what_helps(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "SUITE", checkout / ".venv")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(checkout))
    with bootstrap._locked() as lock, pytest.raises(BootstrapError, match="none of pip, ensurepip and virtualenv"):
        Workshop(lock).uv("making .venv", "venv")
