"""Where Dynamo runs, by the names that the setting ``target`` may have."""

from collections.abc import Callable

from support.contract.target import TargetKind
from support.settings import Settings
from support.targets.fake.kind import FakeKind
from support.targets.kubernetes.kind import KubernetesKind
from support.targets.local.kind import LocalKind

KINDS: dict[str, Callable[[Settings], TargetKind]] = {
    "local": LocalKind,
    "fake": FakeKind,
    "kubernetes": KubernetesKind,
}
"""All of :data:`support.settings.TARGETS_AVAILABLE`."""


def kind(settings: Settings) -> TargetKind:
    """The kind of target that the settings name."""
    return KINDS[settings.target](settings)
