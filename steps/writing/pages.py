"""The catalogue as Markdown, and as one HTML page that can be searched and asks for nothing from anywhere."""

import html
import re
from collections.abc import Iterator, Sequence

from steps.writing.content import Entry, Section, Table

TITLE = "Catalogue: all that a scenario can say"
ABOUT = (
    "Every sentence, setting, failure, check and tag. `make catalogue` writes this page from the code, and a test "
    "keeps it so.",
    "In a sentence `<a|b>` stands for one of these words, `<count>` for a value that is told below it, and what is in "
    "`[...]` may be left out: who is hit, when, and for how long go together in any way. *Waits* "
    "says how long the step takes, *Time counts* from when a time in the sentence counts, *Proof* who says so. The "
    "example is from a scenario that the suite's own tests play. What a word means in all sentences stands once, in "
    "[Words](#words).",
)


def markdown(sections: Sequence[Section]) -> str:
    """The catalogue as a page of the documentation."""
    parts = [f"# {TITLE}", *ABOUT, "To search it, open [catalogue.html](catalogue.html) in a browser, from disk."]
    parts.append(" · ".join(f"[{each.title}](#{anchor(each.title)})" for each in sections))
    for section in sections:
        parts += [f"## {section.title}", section.about]
        parts += [f"```gherkin\n{section.example}\n```"] if section.example else []
        parts += section.more
        parts += [block for entry in section.entries for block in _entry(entry)]
        if section.table:
            parts.append("\n".join(_rows(section.table)))
    return "\n\n".join(parts) + "\n"


def _entry(entry: Entry) -> Iterator[str]:
    yield f"### `{entry.title}`"
    yield entry.meaning
    yield "\n".join(f"- {label}: {value}" for label, value in entry.facts)
    yield f"```gherkin\n{entry.example.line}\n```"
    yield f"From *{entry.example.name}* in `{entry.example.feature}`."


def _rows(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(table.headings)} |"
    yield "|" + "---|" * len(table.headings)
    for row in table.rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def anchor(title: str) -> str:
    """The address of a heading in a page."""
    return re.sub(r"[^\w-]", "", title.lower().replace(" ", "-"))


# -- HTML

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 0 1rem 4rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
code { background: var(--soft); border-radius: 3px; padding: .1em .25em; overflow-wrap: anywhere; }
pre { background: var(--soft); border-radius: 6px; overflow-x: auto; padding: .6rem; }
header { background: Canvas; border-bottom: 1px solid var(--line); padding: .6rem 0; position: sticky; top: 0; }
input { font: inherit; padding: .5rem .7rem; width: 100%; }
nav { font-size: .9rem; margin-top: .6rem; }
output { font-size: .9rem; opacity: .7; }
section { scroll-margin-top: 4rem; }
article { border-top: 1px solid var(--line); padding: .8rem 0; }
article h3 { font-size: 1rem; margin: 0 0 .3rem; }
article p { margin: .3rem 0; }
dl { display: grid; gap: .1rem .8rem; grid-template-columns: max-content 1fr; margin: .4rem 0; }
dt { opacity: .7; } dd { margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; min-width: 100%; }
th, td { border-top: 1px solid var(--line); padding: .35rem .5rem; text-align: left; vertical-align: top; }
[hidden] { display: none; }
@media (max-width: 40rem) {
  dl { display: block; } dt, dd { display: inline; } dt::after { content: ": "; }
  dd::after { content: "\\a"; white-space: pre; }
  pre { white-space: pre-wrap; }
  thead { display: none; } tr, td { display: block; } td { border: 0; padding: .1rem 0; }
  tr { border-top: 1px solid var(--line); padding: .5rem 0; } td:empty { display: none; }
  td::before { content: attr(data-heading) ": "; opacity: .7; }
}
"""
# Words in any order; a part without a match is left out as a whole.
SCRIPT = """
const field = document.querySelector("input"), found = document.querySelector("output");
const items = [...document.querySelectorAll("article, tbody tr")].map((item) => [item, item.textContent.toLowerCase()]);
const parts = [...document.querySelectorAll("section")];
function look() {
  const words = field.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let count = 0;
  for (const [item, text] of items) {
    item.hidden = !words.every((word) => text.includes(word));
    count += !item.hidden;
  }
  for (const part of parts) part.hidden = !part.querySelector("article:not([hidden]), tbody tr:not([hidden])");
  found.textContent = words.length ? `${count} of ${items.length}` : "";
}
field.addEventListener("input", look);
look();
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(sections: Sequence[Section]) -> str:
    """The catalogue as a page of its own."""
    links = " · ".join(f'<a href="#{anchor(each.title)}">{html.escape(each.title)}</a>' for each in sections)
    about = "\n".join(f"<p>{_marked(text)}</p>" for text in ABOUT)
    body = "\n".join(_section(each) for each in sections)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{TITLE}</title>
<style>{STYLE}</style>
<h1>{TITLE}</h1>
{about}
<header>
<input type="search" placeholder="Search: worker crashes, within, etcd leader, spike, ECC ..." aria-label="Search">
<output></output>
</header>
<nav>{links}</nav>
{body}
<script>{SCRIPT}</script>
</html>
"""


def _section(section: Section) -> str:
    example = f"<pre>{html.escape(section.example)}</pre>\n" if section.example else ""
    inside = example + "".join(f"<p>{_marked(text)}</p>\n" for text in section.more)
    inside += "".join(map(_article, section.entries)) + (_table(section.table) if section.table else "")
    head = f"<h2>{html.escape(section.title)}</h2>\n<p>{_marked(section.about)}</p>"
    return f'<section id="{anchor(section.title)}">\n{head}\n{inside}</section>'


def _article(entry: Entry) -> str:
    facts = "".join(f"<dt>{label}</dt><dd>{_marked(value)}</dd>" for label, value in entry.facts)
    example = entry.example
    return f"""<article>
<h3><code>{html.escape(entry.title)}</code></h3>
<p>{_marked(entry.meaning)}</p>
<dl>{facts}</dl>
<pre>{html.escape(example.line)}</pre>
<details><summary>The whole scenario, from {html.escape(example.feature)}</summary>
<pre>{html.escape(example.scenario)}</pre></details>
</article>
"""


def _table(table: Table) -> str:
    head = "".join(f"<th>{heading}</th>" for heading in table.headings)
    rows = "\n".join(
        "<tr>"
        + "".join(
            f'<td data-heading="{heading}">{_marked(cell)}</td>'
            for heading, cell in zip(table.headings, row, strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>\n'


def _marked(text: str) -> str:
    """A text with its code, and what is stressed, as HTML."""
    escaped = html.escape(text, quote=False)
    linked = re.sub(r"\[(\w+)\]\((#[\w-]+)\)", r'<a href="\2">\1</a>', escaped)
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", re.sub(r"`([^`]+)`", r"<code>\1</code>", linked))
