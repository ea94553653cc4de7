"""``python -m steps.writing.new NAME``: a feature file to begin with. It runs, and is there to be changed."""

import re
import sys
from pathlib import Path

from steps.writing.examples import as_text, scenarios
from support.contract.shape import ENGINES
from support.settings import ROOT

FORM = re.compile(r"[A-Za-z][\w ,.'()%-]*", re.ASCII)
LONGEST = 100


def write(name: str) -> Path:
    """Write a feature with one scenario, both of this name.

    Raises:
        ValueError: the name cannot be one, or is taken.
        LookupError: there is no scenario to begin with.
    """
    name = " ".join(name.split())
    if not FORM.fullmatch(name) or len(name) > LONGEST:
        raise ValueError(
            f"NAME is {name!r}; expected a short sentence of letters, digits, spaces and , . ' ( ) % - that begins "
            'with a letter, such as make new NAME="A worker crashes twice"'
        )
    file = ROOT / "features" / f"{re.sub('[^a-z0-9]+', '_', name.lower()).strip('_')}.feature"
    if file.exists():
        raise ValueError(f"NAME is {name!r}, but features/{file.name} already exists; choose another name")
    found = list(scenarios())
    taken = {each.lower(): at for at, scenario in found for each in (scenario.name, scenario.feature.name)}
    if name.lower() in taken:
        raise ValueError(f"NAME is {name!r}, which is already a name in {taken[name.lower()]}; choose another one")
    begin = next((scenario for _, scenario in found if "smoke" in scenario.effective_tags), None)
    if begin is None:
        raise LookupError("no scenario has the tag @smoke, so there is none to begin with")
    tags = " ".join(f"@{tag}" for tag in ENGINES if tag in begin.effective_tags)
    lines = [f"Scenario: {name}", *as_text(begin)]
    head = [f"Feature: {name}", "  Say here in a line or two what Dynamo promises its users.", ""]
    file.write_text("\n".join([*head, f"  {tags}", *(f"  {line}" for line in lines)]) + "\n", encoding="utf-8")
    return file


def main() -> None:
    """Entry point.

    Raises:
        SystemExit: the name cannot be one, or is taken; says what to do.
    """
    try:
        file = write(" ".join(sys.argv[1:])).relative_to(ROOT)
    except ValueError as error:
        raise SystemExit(f"new: {error}") from None
    print(f"{file} is written. Try it in memory:   .venv/bin/behave -D target=fake {file}")
    print(f"Then on real Dynamo:                   make acceptance FEATURES={file}")
    print("What else it can say:                  docs/catalogue.html")
    print("To keep it, say in tests/sabotage/table.yaml what makes it fail (docs/sabotage.md).")


if __name__ == "__main__":
    main()
