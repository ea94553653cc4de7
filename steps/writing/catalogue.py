"""``python -m steps.writing.catalogue [--check]``: writes the catalogue of all that a scenario can say, from the code.

With ``--check`` it writes nothing, and fails where a page is not what it would write. Either way it fails where a
sentence does not say what a reader has to know, or no scenario shows it, and names all that is missing.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from steps.writing import editor, pages
from steps.writing.content import TAGS, sections
from steps.writing.examples import Usage, usages
from steps.writing.sentences import Sentence, load
from support.settings import ROOT


def problems(sentences: Sequence[Sentence], uses: Mapping[str, Usage]) -> list[str]:
    """What is missing, a line each."""
    found = []
    for sentence in sentences:
        usage = uses[sentence.pattern]
        lacking = [TAGS[name] for name in sentence.needs if name in TAGS and TAGS[name] not in usage.tags]
        found += sentence.problems()
        found += [f'"{sentence.pattern}": not every scenario with it has the tag @{tag}' for tag in lacking]
        if usage.example is None:
            found.append(f'"{sentence.pattern}": no scenario of the default selection is an example of it')
    return found


def texts() -> dict[Path, str]:
    """Each file of the catalogue, and what it has to hold.

    Raises:
        SystemExit: something is missing; all of it is named.
    """
    sentences = load()
    uses = usages(sentences)
    if missing := problems(sentences, uses):
        raise SystemExit("\n".join(["the catalogue is not complete:", *missing]))
    parts = list(sections(sentences, uses))
    return {
        ROOT / "docs" / "catalogue.md": pages.markdown(parts),
        ROOT / "docs" / "catalogue.html": pages.page(parts),
        **editor.texts(sentences),
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m steps.writing.catalogue", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is out of date")
    check = parser.parse_args().check
    stale = {
        file: text for file, text in texts().items() if not file.exists() or file.read_text(encoding="utf-8") != text
    }
    names = ", ".join(str(file.relative_to(ROOT)) for file in stale)
    if check and stale:
        sys.exit(f"out of date: {names}; run make catalogue")
    for file, text in stale.items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    print(f"written: {names}" if stale else "the catalogue is up to date")


if __name__ == "__main__":
    main()
