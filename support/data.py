"""Reading the data files that are committed with the code."""

from pathlib import Path
from typing import Any

import yaml

# libyaml's parser is ten times as fast, and each scenario's process reads these files. Not every wheel has it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; plain data only.

    Raises:
        OSError: it cannot be read.
        yaml.YAMLError: it is no YAML.
    """
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
