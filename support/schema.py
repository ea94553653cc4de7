"""What the fields of a dataclass may hold: said in their annotations, checked by pydantic, told in words of our own.

``clients: Annotated[int, Expected("a whole number, 1 or more", ge=1)]`` refuses 0 with ``clients is 0; expected a whole
number, 1 or more``, as soon as :func:`read` is asked; the constructor of a dataclass checks nothing. Types are checked
strictly: "5" is not a number, 1 is not true.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from support.errors import Mistake

T = TypeVar("T")


class Invalid(Mistake):
    """Something cannot be; ``place`` has the keys and indices, from the outermost, that lead to it."""

    def __init__(self, message: str, *place: str | int) -> None:
        super().__init__(message)
        self.place = place


@contextmanager
def inside(*place: str | int, of: str = "") -> Iterator[None]:
    """Whatever is wrong here is wrong at ``place``, and the message begins with what it is a part ``of``."""
    try:
        yield
    except ValueError as error:
        raise Invalid(f"{of}: {error}" if of else str(error), *place, *getattr(error, "place", ())) from None


# It makes pydantic's core schemas, which are plain dicts, so that pydantic itself is imported by the first check alone:
# that costs a tenth of a second, and a client of a load, for one, checks nothing.
class Expected:
    """Annotation: a value that does not meet ``constraints`` (``ge``, ``gt``, ``le``, ``lt``, ``multiple_of``,
    ``pattern``) is refused as not the expected ``words``.

    Args:
        parse: makes the value from a text; raises ValueError where it cannot.
    """

    def __init__(self, words: str, parse: Callable[[str], Any] | None = None, **constraints: Any) -> None:
        self._words, self._parse, self._constraints = words, parse, constraints

    @property
    def words(self) -> str:
        """What is expected."""
        return self._words

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """The hook that pydantic looks for."""
        if self._parse:
            parse = {"type": "no-info", "function": self._parse}
            schema = {"type": "function-after", "function": parse, "schema": {"type": "str"}}
        else:
            schema = {**handler(source), **self._constraints}
        error = {"custom_error_type": "expected", "custom_error_message": f"expected {self.words}"}
        return {"type": "custom-error", "schema": schema, **error}


class OneOf(Expected):
    """Annotation: the value is one of ``words``, or of those that it returns when they are needed first."""

    def __init__(self, words: Iterable[Any] | Callable[[], Iterable[Any]]) -> None:
        self._all = words if callable(words) else lambda: words

    @property
    def words(self) -> str:
        """What is expected."""
        return f"one of {', '.join(map(str, self._all()))}"

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """The hook that pydantic looks for."""
        super().__init__(self.words, type="literal", expected=list(self._all()))
        return super().__get_pydantic_core_schema__(source, handler)


PositiveInt = Annotated[int, Expected("a whole number, 1 or more", ge=1)]
NonNegativeInt = Annotated[int, Expected("a whole number, 0 or more", ge=0)]
PositiveFloat = Annotated[float, Expected("a number, more than 0", gt=0)]
NonNegativeFloat = Annotated[float, Expected("a number, 0 or more", ge=0)]


def expected_of(annotation: Any) -> str:
    """What a field with this annotation has to hold, in words; empty where the annotation does not say."""
    inner = (expected_of(each) for each in get_args(annotation))
    return annotation.words if isinstance(annotation, Expected) else next(filter(None, inner), "")


def read(kind: type[T], content: Any) -> T:
    """A dataclass from plain data, or from an instance, which is checked once more with all that is in it.

    Raises:
        Invalid: a key is unknown or missing, or a value cannot be.
    """
    from pydantic import ValidationError  # not at the top, see above

    adapter = _adapter(kind)  # type: ignore[arg-type]  # mypy takes no class for hashable
    found: list[T]
    try:
        if isinstance(content, kind):
            found = adapter.validate_python([content])
        else:  # as JSON, for in Python data a strict pydantic takes no mapping for a dataclass
            found = adapter.validate_json(json.dumps([content], default=str))
    except ValidationError as error:
        raise _told(kind, error.errors()) from None
    return found[0]


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter  # not at the top, see above

    config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, revalidate_instances="always")
    config["arbitrary_types_allowed"] = True  # in checkers of somebody else's
    # Of a list, for that takes the configuration which a dataclass itself would have to bring.
    return TypeAdapter(list[kind], config=config)


def _told(kind: Any, errors: list[Any]) -> Invalid:
    """The error that matters, in words: of a value that may be this or that, what is wrong with the one that was meant
    lies deepest; a key that is unknown often is the one that is missing, misspelt.
    """
    error = max(errors, key=lambda each: (len(each["loc"]), each["type"] != "missing"))
    # pydantic names what a value may be as if it were a key: by its type, which has a capital letter.
    place = [each for each in error["loc"][1:] if isinstance(each, int) or each.islower()]
    for step in place:
        hint = get_type_hints(kind).get(str(step))
        kind = next((each for each in (hint, *get_args(hint)) if is_dataclass(each)), kind)
    keys = ", ".join(each.name for each in fields(kind))
    name = next((each for each in reversed(place) if isinstance(each, str)), "")
    said = f"{name} is {error['input']!r}; " if name else ""
    match error["type"]:
        case "missing":
            lacking = (each["loc"][-1] for each in errors if each["loc"][:-1] == error["loc"][:-1])
            said = f"{', '.join(lacking)} missing"
        case "unexpected_keyword_argument":
            said = f"unknown key {error['loc'][-1]!r} of {kind.__name__}; allowed are {keys}"
        case "dataclass_type":
            said += f"expected a mapping with keys {keys}"
        case "dict_type":
            said += "expected a mapping of names to values"
        case _:
            said += error["msg"].replace("Input should be", "expected")
    return Invalid(said, *place)
