"""What a shell looks at and does in a container: with the program and all that it has started, and with nothing else.

The containers of a pod share a process namespace, in which the first process is none of theirs: the program is the
lowest number without a parent there, shells that were sent in come after it.
"""

HOLD = "/data/held"

_FIND = """
own=$$; main=0; found=
for folder in /proc/[0-9]*; do
  number=${folder#/proc/}; parent=; state=
  while read -r key value _; do
    case $key in State:) state=$value ;; PPid:) parent=$value; break ;; esac
  done 2>/dev/null <"$folder/status"
  [ -n "$parent" ] && [ "$number" != 1 ] && [ "$number" != "$own" ] && [ "$state" != Z ] || continue
  found="$found $number:$parent:$state"
  if [ "$parent" = 0 ] && { [ "$main" = 0 ] || [ "$number" -lt "$main" ]; }; then main=$number; fi
done
all=; states=
for each in $found; do
  number=${each%%:*}; rest=${each#*:}
  [ "${rest%%:*}" != 0 ] || [ "$number" = "$main" ] || continue
  all="$all $number"; states="$states ${rest#*:}"
done
"""

LOOK = f"{_FIND}echo $states"
"""Says the state of each process, a letter as the kernel has it."""


def stopped(said: str) -> bool:
    """Whether none of the processes that :data:`LOOK` tells of may run."""
    letters = said.split()
    return bool(letters) and all(letter in ("T", "t") for letter in letters)


def send(signal: str, alone: bool = False, hold: bool = False) -> str:
    """A script that signals the program and all that it has started, such as ``KILL``.

    Args:
        alone: the program alone, as a kubelet does that ends a pod.
        hold: keep it from starting again until :data:`RELEASE`.
    """
    first = f": > {HOLD}\n" if hold else ""
    return f"{_FIND}{first}kill -{signal} ${'main' if alone else 'all'}"


def connect(python: str, address: str, port: int) -> str:
    """A script that says ``open`` where somebody takes a connection, and why not elsewhere."""
    program = f"""
import socket
try:
    socket.create_connection(("{address}", {port}), 1).close()
    print("open")
except OSError as error:
    print(error)
"""
    return f"{python} -c '{program}'"


RELEASE = f"rm -f {HOLD}"
