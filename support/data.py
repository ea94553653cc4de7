"""Reading the data files that are committed with the code, and scenarios of users' own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from packaging.specifiers import SpecifierSet

from support.errors import Mistake
from support.schema import Expected, Invalid, read

T = TypeVar("T")

Releases = Annotated[SpecifierSet, Expected("Dynamo releases such as '>=1.4,<1.7'", parse=SpecifierSet)]

# libyaml's parser is ten times as fast, and each scenario's process reads these files. Not every wheel has it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; plain data only.

    Raises:
        OSError: it cannot be read.
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)


def read_list(path: Path, kind: type[T], key: str = "", check: Callable[[T], None] = lambda entry: None) -> list[T]:
    """The entries of a YAML file that is a list of mappings with the fields of a dataclass.

    Args:
        kind: the dataclass, annotated as :mod:`support.schema` has it.
        key: field that tells the entries apart; empty: they may all be alike.
        check: called with each entry; raises ValueError where it cannot be.

    Raises:
        Mistake: names the file, the line, what is wrong and what is allowed.
        OSError: the file cannot be read.
    """
    loader, found = _LOADER(path.read_text(encoding="utf-8")), dict[Any, T]()
    try:
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        raise Mistake(f"{path.name} is not YAML: {error}") from error
    if not isinstance(root, yaml.SequenceNode):
        raise Mistake(f"{path.name}: expected a list, each entry with the keys of {kind.__name__}; [] for none")
    for number, node in enumerate(root.value):
        lines: dict[tuple[str | int, ...], int] = {}
        try:
            for place, line in _lines(node, node):
                repeated = place in lines
                lines[place] = line
                if repeated:
                    raise Invalid(f"{place[-1]!r} a second time", *place)
            entry = read(kind, loader.construct_object(node, deep=True))
            check(entry)
            name = getattr(entry, key) if key else number
            if name in found:
                raise ValueError(f"a second {kind.__name__} {name!r}; give each its own {key}")
        except (TypeError, ValueError, yaml.YAMLError) as error:
            place = getattr(error, "place", ())
            while place not in lines:
                place = place[:-1]
            raise Mistake(f"{path.name}, line {lines[place]}: {error}") from None
        found[name] = entry
    return list(found.values())


def _lines(key: yaml.Node, value: yaml.Node, *place: str | int) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """The place and the line of a value and of all that is in it."""
    yield place, key.start_mark.line + 1
    if isinstance(value, yaml.MappingNode):
        for name, inner in value.value:
            yield from _lines(name, inner, *place, str(name.value))
    elif isinstance(value, yaml.SequenceNode):
        for index, inner in enumerate(value.value):
            yield from _lines(inner, inner, *place, index)
