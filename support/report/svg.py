"""SVG by hand: a run has dozens of pictures, and a plotting library took a second of CPU time for every four.

Places along the time axis are percent of the picture's width, all else is pixels: a picture fills a phone and a desk
with words of the same size. Colours are names of :data:`PALETTE`, which is another one in dark mode; none of them says
anything that a word, a sign or a pattern does not say as well.
"""

import textwrap
from collections.abc import Mapping, Sequence
from html import escape

TEXT_SIZE = 12
LETTER = 6.4
"""Pixels that a letter takes, on average and generously."""
NARROW = 275
"""Pixels of the narrowest picture that is cared for, Allure's on a phone: what fits there fits everywhere."""
PALETTE: Mapping[str, tuple[str, str]] = {
    "ink": ("#1b1f24", "#e9ecef"),
    "soft": ("#57606a", "#a3abb3"),
    "paper": ("#ffffff", "#1b1c1e"),
    "grid": ("#d8dee4", "#3a3f45"),
    "good": ("#0072b2", "#56b4e9"),
    "fault": ("#b3261e", "#ff8a80"),
    "warn": ("#a85800", "#f0a53c"),
    "calm": ("#8fd0b5", "#1f6f53"),
    "idle": ("#c9ced4", "#555b61"),
    "first": ("#7a4fb5", "#c3a5f0"),
}
"""Name of a colour -> it on white, it on black; none tells red from green."""


def ticks(end: float) -> list[float]:
    """Round values from 0 to ``end``, some six of them."""
    step = next(size * 10.0**power for power in range(-3, 9) for size in (1, 2, 5) if end / (size * 10.0**power) <= 7)
    return [round(step * number, 3) for number in range(int(end / step) + 1)]


def paint(colour: str) -> str:
    """How a colour of :data:`PALETTE`, or a pattern (``url(#stripes)``), is written."""
    return colour if colour.startswith(("url(", "none")) else f"var(--{colour})"


def text(
    x: float,
    y: float,
    words: str,
    colour: str = "ink",
    *,
    size: int = TEXT_SIZE,
    weight: str = "normal",
    anchor: str = "start",
    shift: float = 0,
) -> str:
    """Words at a place, with a halo; ``shift`` moves them by this many pixels to the right."""
    usual = {"fill": paint("ink"), "font-size": TEXT_SIZE, "font-weight": "normal", "text-anchor": "start", "dx": "0"}
    style = {"fill": paint(colour), "font-size": size, "font-weight": weight, "text-anchor": anchor, "dx": f"{shift:g}"}
    said = "".join(f' {name}="{value}"' for name, value in style.items() if value != usual[name])
    return f'<text x="{x:.2f}%" y="{y:.1f}"{said}>{escape(words)}</text>'


def lines(words: str, most: int, *, letter: float = LETTER, indent: int = 0) -> list[str]:
    """Words in at most this many lines, each with room in the narrowest picture, ``indent`` pixels from its left."""
    return textwrap.wrap(words, int((0.95 * NARROW - indent) / letter), max_lines=most, placeholder="…")


def fits(words: str, width: float) -> bool:
    """Whether words have room in ``width`` percent of the narrowest picture."""
    return LETTER * len(words) + 4 <= width / 100 * NARROW


def box(x: float, y: float, width: float, height: float, colour: str, told: str = "", *, edge: str = "") -> str:
    """A filled rectangle with an edge of the colour ``edge``; ``told`` shows when the mouse rests on it."""
    title = f"<title>{escape(told)}</title>" if told else ""
    fill = f'fill="{paint(colour)}"' + (f' stroke="{paint(edge)}"' if edge else "")
    return f'<rect x="{x:.2f}%" y="{y:.1f}" width="{max(0.0, width):.2f}%" height="{height:g}" {fill}>{title}</rect>'


def upright(x: float, top: float, bottom: float, colour: str, *, dashed: bool = False) -> str:
    """A line from top to bottom."""
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{x:.2f}%" x2="{x:.2f}%" y1="{top:.1f}" y2="{bottom:.1f}" stroke="{paint(colour)}"{dashes}/>'


def level(left: float, right: float, y: float, colour: str, *, dashed: bool = False) -> str:
    """A line from left to right."""
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{left:.2f}%" x2="{right:.2f}%" y1="{y:.1f}" y2="{y:.1f}" stroke="{paint(colour)}"{dashes}/>'


def badge(x: float, y: float, sign: str, colour: str, *, shift: float = 0) -> str:
    """A sign in a circle; ``shift`` moves it by this many pixels to the right."""
    style = f'fill="{paint("paper")}" stroke="{paint(colour)}" stroke-width="1.5"'
    moved = f' transform="translate({shift:.1f})"' if shift else ""
    circle = f'<circle cx="{x:.2f}%" cy="{y:.1f}" r="8" {style}{moved}/>'
    return circle + text(x, y + 4, sign, colour, size=11, weight="bold", anchor="middle", shift=shift)


def stretched(y: float, height: float, path: str, colour: str, *, width: float = 0.0) -> str:
    """A line through points whose x counts thousandths of the picture's width, as the path of an SVG; it is as thick as
    any line, or ``width`` of these thousandths where it is upright.
    """
    thick = f'stroke-width="{width:g}"' if width else 'stroke-width="1.8" vector-effect="non-scaling-stroke"'
    style = f'fill="none" stroke="{paint(colour)}" {thick}'
    line = f'<path d="{path}" {style}/>'
    room = f'width="100%" height="{height:g}" viewBox="0 0 1000 {height:g}" preserveAspectRatio="none"'
    return f'<svg x="0" y="{y:.1f}" {room}>{line}</svg>'


def frame(height: float, told: str, parts: Sequence[str]) -> str:
    """A whole picture with ``parts`` drawn one over the other; ``told`` is for who cannot see it."""
    light, dark = (";".join(f"--{name}:{pair[night]}" for name, pair in PALETTE.items()) for night in (0, 1))
    style = (
        f"svg{{{light}}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}"
        "text{stroke:var(--paper);stroke-width:4;paint-order:stroke}"
    )
    stripes = (
        '<pattern id="stripes" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        f'<rect width="8" height="8" fill="{paint("fault")}" fill-opacity=".07"/>'
        f'<rect width="2.5" height="8" fill="{paint("fault")}" fill-opacity=".38"/></pattern>'
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="100%" height="{height:g}" role="img"'
    font = f' font-family="Helvetica, Arial, sans-serif" font-size="{TEXT_SIZE}" fill="{paint("ink")}">'
    paper = f'<rect width="100%" height="100%" fill="{paint("paper")}"/>'
    begin = f"{head}{font}<title>{escape(told)}</title><style>{style}</style><defs>{stripes}</defs>{paper}"
    return "\n".join([begin, *parts, "</svg>", ""])
