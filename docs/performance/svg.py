"""Charts as plain SVG: lines over an axis, named where they end. The same data gives the same bytes."""

import math
from dataclasses import dataclass, field

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 74, 170, 64, 52
GAP = 15  # Between two names at the end of lines.

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #424a53 }
.title { font-size: 15px; font-weight: 600; fill: #1f2328 }
.grid { stroke: #8c959f; stroke-opacity: .25 }
.axis { stroke: #8c959f }
.line { fill: none; stroke-width: 2 }
.reference { stroke-dasharray: 5 4 }
@media (prefers-color-scheme: dark) {
text { fill: #b1bac4 }
.title { fill: #f0f6fc }
}"""

# Readable on white and on black.
COLOURS = ["#2f7ed8", "#d9730d", "#2a9d60", "#b1489f", "#c94a4a"]
GREY = "#848d97"


@dataclass
class Series:
    """A line: its name, and points (x, y) in order of x."""

    name: str
    points: list
    reference: bool = False


@dataclass
class Axis:
    label: str
    log: bool = False
    ticks: list = field(default_factory=list)
    text: object = None
    low: float | None = None

    def place(self, value: float, ends: tuple, pixels: tuple) -> float:
        low, high = (math.log10(end) for end in ends) if self.log else ends
        share = ((math.log10(value) if self.log else value) - low) / ((high - low) or 1)
        return pixels[0] + share * (pixels[1] - pixels[0])

    def ends(self, values: list) -> tuple:
        low, high = min(values), max(values)
        if self.log:
            return low, max(high, low * 1.01)
        return (0.0 if self.low is None else self.low), high * 1.05 or 1.0


def short(value: float) -> str:
    """A number for an axis: 1,500 as 1.5k."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def nice(low: float, high: float, log: bool) -> list:
    """Round values between the ends."""
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1,) if high / low > 300 else (1, 2, 5)
        return [s * 10.0**d for d in decades for s in steps if low * 0.999 <= s * 10.0**d <= high * 1.001]
    step = 10 ** math.floor(math.log10((high - low) / 4 or 1))
    step *= next(s for s in (1, 2, 5, 10) if (high - low) / (step * s) <= 6)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step * 1.0001) + 1)]


def chart(title: str, x: Axis, y: Axis, series: list[Series]) -> str:
    """One picture; its title says what is to be seen."""
    # A logarithm has no place for nothing.
    shown = [[p for p in line.points if (p[0] > 0 or not x.log) and (p[1] > 0 or not y.log)] for line in series]
    series = [Series(line.name, points, line.reference) for line, points in zip(series, shown) if points]
    xs = [point[0] for line in series for point in line.points]
    ys = [point[1] for line in series for point in line.points]
    x_ends, y_ends = (min(xs), max(xs)), y.ends(ys)
    across, down = (LEFT, WIDTH - RIGHT), (HEIGHT - BOTTOM, TOP)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}\n</style>",
        f'<text class="title" x="16" y="26">{escape(title)}</text>',
        f'<text x="16" y="48">{escape(y.label)}</text>',
        f'<text x="{(across[0] + across[1]) / 2:.0f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x.label)}</text>',
    ]
    for value in y.ticks or nice(*y_ends, y.log):
        at = y.place(value, y_ends, down)
        out.append(f'<line class="grid" x1="{across[0]}" x2="{across[1]}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(f'<text x="{across[0] - 8}" y="{at + 4:.1f}" text-anchor="end">{(y.text or short)(value)}</text>')
    for value in x.ticks or nice(*x_ends, x.log):
        at = x.place(value, x_ends, across)
        out.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{down[0]}" y2="{down[0] + 4}"/>')
        out.append(f'<text x="{at:.1f}" y="{down[0] + 19}" text-anchor="middle">{(x.text or short)(value)}</text>')
    out.append(f'<line class="axis" x1="{across[0]}" x2="{across[1]}" y1="{down[0]}" y2="{down[0]}"/>')
    ends, colours = [], iter(COLOURS)
    for line in series:
        colour = GREY if line.reference else next(colours)
        places = [(x.place(px, x_ends, across), y.place(py, y_ends, down)) for px, py in line.points]
        out.append(drawn(places, colour, line.reference))
        ends.append((places[-1], line.name, colour))
    out += names(ends, down)
    return "\n".join([*out, "</svg>", ""])


def drawn(places: list, colour: str, reference: bool) -> str:
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
    kind = "line reference" if reference else "line"
    dots = ""
    if len(places) <= 12 and not reference:
        dots = "".join(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in places)
    return f'<polyline class="{kind}" stroke="{colour}" points="{path}"/>{dots}'


def names(ends: list, down: tuple) -> list[str]:
    """The name of each line beside its end, pushed apart where they would cover each other."""
    out, floor = [], down[1] - GAP
    ordered = sorted(ends, key=lambda end: end[0][1])
    for number, ((px, py), name, colour) in enumerate(ordered):
        below = len(ordered) - number - 1
        at = min(max(py + 4, floor + GAP), down[0] - below * GAP + 4)
        floor = at
        out.append(f'<text x="{px + 8:.1f}" y="{at:.1f}" style="fill:{colour}">{escape(name)}</text>')
    return out


def escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
