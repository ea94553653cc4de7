"""Programs of the suite as forks of a process that has their modules loaded already.

Loading them costs more than most of them do in their life: half a second of CPU for each fault service.
"""

import contextlib
import os
import runpy
import select
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from pathlib import Path

from setproctitle import getproctitle, setproctitle

from agents.core.kernel import die_with_parent, outlive_parent

Leave = Callable[[int], None]

getproctitle()  # finds the memory for titles, which it no longer does once the environment was changed


def fork(program: Callable[[], int]) -> int:
    """Run ``program`` in a fork of this process, which may have no other threads; returns its pid.

    The fork ends with what ``program`` returns, or as it would in a process of its own: with the status of SystemExit,
    with 1 and a traceback for any other exception, with 120 if its output could not be written. It takes signals as a
    new program does, whatever this process does with them.
    """
    _flush()  # what is still in their buffers would be written twice
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _take_signals()
        status = program()
    except SystemExit as end:
        status = _status(end)
    except BaseException:  # noqa: BLE001 - told as Python tells it
        traceback.print_exc()
    finally:
        try:
            _flush()
        except OSError:  # as where it is piped into `head`
            status = status or 120
        finally:
            os._exit(status)


def attend(program: Callable[[Leave], int]) -> int:
    """Run ``program`` in a fork that ends with this process, and wait for it.

    Args:
        program: is given a function with which it may leave: called with a status, it lets the fork outlive this
            process, for which the fork is over with that status.

    Returns:
        its exit status, 128 + N when signal N ended it, or the one that it has left with.
    """
    told, tell = os.pipe()

    def leave(status: int) -> None:
        outlive_parent()
        os.write(tell, bytes([status]))

    def attended() -> int:
        die_with_parent()
        os.close(told)
        return program(leave)

    pid = fork(attended)
    os.close(tell)
    # Whoever ends the run signals the whole process group, that fork included.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    waiting = select.poll()
    for each in (told, os.pidfd_open(pid)):
        waiting.register(each, select.POLLIN)
    waiting.poll()
    os.set_blocking(told, False)
    try:
        if said := os.read(told, 1):
            return said[0]
    except BlockingIOError:  # it has ended, and something that it started has not
        pass
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if status >= 0 else 128 - status


def run_module(name: str, arguments: list[str]) -> int:
    """Run a module as ``python -m`` does, in this process, which is called so from now on; returns its exit status."""
    setproctitle(" ".join([sys.executable, "-m", name, *arguments]))
    sys.argv = [name, *arguments]
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return _status(end)
    return 0


def use_files(stdin: int | None, output: int | None) -> None:
    """Make the open files standard input, and standard output and error; None leaves them as they are. What is still to
    be written goes where it should, if anybody reads it there.
    """
    with contextlib.suppress(OSError):
        _flush()
    if stdin is not None:
        os.dup2(stdin, 0)
    if output is not None:
        os.dup2(output, 1)
        os.dup2(output, 2)
    # Python's own may be somebody else's: pytest puts others in their places.
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if (before := getattr(sys, f"__{name}__")) is None:  # it was closed when this program began
            continue
        how = {"encoding": before.encoding, "errors": before.errors, "buffering": 1 if name == "stderr" else -1}
        stream = os.fdopen(fd, "w" if fd else "r", closefd=False, **how)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def close_all_but(kept: Collection[int]) -> None:
    """Close what this process has open, standard files and ``kept`` excepted."""
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if fd > 2 and fd not in kept:
            try:
                os.close(fd)
            except OSError:  # the listing itself
                continue


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it was closed when this program began
            stream.flush()


def _take_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)) or signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)  # as Python itself begins
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _status(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1
