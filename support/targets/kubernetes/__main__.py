"""What can be done with the target kubernetes by hand.

``python -m support.targets.kubernetes render [--engine E] [--workers N] [--discovery D] ...``
    the manifests of a deployment, as YAML; nothing is asked of a cluster.
``python -m support.targets.kubernetes clean [--all]``
    remove what scenarios have left on the cluster once its lease is over; with ``--all``, whatever its lease says.
"""

import argparse
import sys
from dataclasses import replace

import yaml

from support import releases
from support.contract.shape import ENGINES, RESTART_POLICIES, Shape
from support.errors import SuiteError
from support.settings import Settings
from support.targets.kubernetes import images, manifests
from support.targets.kubernetes.api import ApiServer
from support.targets.kubernetes.manifests import Blueprint
from support.targets.kubernetes.scope import reap
from support.targets.kubernetes.target import DISCOVERIES, discovery

ANY_IMAGE = "any-image-that-all-nodes-have"


def render(settings: Settings, shape: Shape) -> str:
    """The manifests of a deployment of that shape, in the order in which they are applied."""
    release = releases.get(settings.dynamo)
    shape.check(release, DISCOVERIES)
    programs = images.from_settings(settings) or images.of_this_machine(settings, ANY_IMAGE)
    plan = Blueprint(shape, release, programs, discovery(shape, settings, release))
    return str(yaml.safe_dump_all(manifests.everything(plan, settings.namespace or "dynamo"), sort_keys=False))


def _shape(options: argparse.Namespace) -> Shape:
    given = {name: value for name, value in vars(options).items() if value is not None and name != "do"}
    return replace(Shape(), **given)


def main() -> None:
    """The command line. Exit status 1, with one sentence, when the cluster or the settings do not allow it."""
    parser = argparse.ArgumentParser(prog="python -m support.targets.kubernetes", description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="do", required=True)
    shown = parts.add_parser("render", help="the manifests of a deployment, as YAML")
    shown.add_argument("--engine", choices=ENGINES)
    for name in ("workers", "prefill-workers", "frontends", "etcd-members", "migration-limit"):
        shown.add_argument(f"--{name}", type=int, metavar="N")
    shown.add_argument("--discovery", choices=DISCOVERIES)
    shown.add_argument("--request-plane", choices=("tcp", "nats"))
    shown.add_argument("--restart-policy", choices=RESTART_POLICIES)
    clean = parts.add_parser("clean", help="remove what scenarios have left")
    clean.add_argument("--all", action="store_true", dest="everything", help="also what still has a lease")
    options = parser.parse_args()
    try:
        settings = Settings.load()
        if options.do == "render":
            print(render(settings, _shape(options)), end="")
            return
        removed = reap(ApiServer(settings.kubeconfig), settings.namespace, options.everything)
        print("\n".join(f"removed {each}" for each in removed) or "nothing to remove")
    except (SuiteError, ValueError, FileNotFoundError) as error:
        sys.exit(f"kubernetes: {error}")


if __name__ == "__main__":
    main()
