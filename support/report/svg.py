"""SVG by hand: a run has dozens of pictures, and a plotting library took a second of CPU time for every four."""

from html import escape

TEXT_COLOUR, TEXT_SIZE = "#222222", 12
"""What most words look like; said once for a whole picture."""


def ticks(end: float) -> list[float]:
    """Round values from 0 to ``end``, some six of them."""
    step = next(size * 10.0**power for power in range(-3, 9) for size in (1, 2, 5) if end / (size * 10.0**power) <= 7)
    return [round(step * number, 3) for number in range(int(end / step) + 1)]


def text(
    x: float,
    y: float,
    words: str,
    colour: str = TEXT_COLOUR,
    *,
    size: int = TEXT_SIZE,
    weight: str = "normal",
    anchor: str = "start",
) -> str:
    """Words at a place, with a white halo."""
    usual = {"fill": TEXT_COLOUR, "font-size": TEXT_SIZE, "font-weight": "normal", "text-anchor": "start"}
    style = {"fill": colour, "font-size": size, "font-weight": weight, "text-anchor": anchor}
    said = "".join(f' {name}="{value}"' for name, value in style.items() if value != usual[name])
    return f'<text x="{x:.1f}" y="{y:.1f}"{said}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, colour: str, told: str = "", *, opacity: float = 1.0) -> str:
    """A filled rectangle; ``told`` shows when the mouse rests on it."""
    title = f"<title>{escape(told)}</title>" if told else ""
    fill = f'fill="{colour}"' + (f' fill-opacity="{opacity:g}"' if opacity < 1 else "")
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height}" {fill}>{title}</rect>'


def frame(width: float, height: float, parts: list[str]) -> str:
    """A whole picture, white, with ``parts`` drawn one over the other."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    font = f' font-family="Helvetica, Arial, sans-serif" font-size="{TEXT_SIZE}" fill="{TEXT_COLOUR}">'
    halo = "<style>text{stroke:white;stroke-width:3;paint-order:stroke}</style>"
    white = '<rect width="100%" height="100%" fill="white"/>'
    return f"{head}{font}{halo}{white}\n{chr(10).join(parts)}\n</svg>\n"
