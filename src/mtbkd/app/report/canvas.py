"""How a matplotlib figure becomes inline SVG that follows the page's light or dark colours.

Figures are painted in sentinel colours, one for each role; in the SVG they become the page's CSS
variables. Text stays text, in the page's font, and equal input gives equal bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib import resources

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_ROLES = ("ink", "muted", "line", "student", "pool", "wrong", "heat")
ROLE = {name: f"#0a00{i:02x}" for i, name in enumerate(_ROLES, start=1)}
"""The colour to paint in for each role of the page's palette."""

CHAINS = tuple(f"#0b00{i:02x}" for i in range(8))
"""The colours of chains, used in turn; ``--chain-0`` to ``--chain-7`` on the page."""

_VARIABLES = {colour: f"var(--{name})" for name, colour in ROLE.items()} | {
    colour: f"var(--chain-{i})" for i, colour in enumerate(CHAINS)
}
_METADATA = {key: None for key in ("Date", "Creator", "Format", "Type")}
DASHED = (0, (4, 3))


@dataclass
class Drawing:
    """A figure, and what became of it when its ``with`` block ended."""

    figure: Figure
    svg: str = ""


@contextmanager
def draw(name: str, title: str, size: tuple[float, float]) -> Iterator[Drawing]:
    """A figure to be painted in the block, of which it makes one ``<svg>`` element.

    Args:
        name: Unique on the page; prefixes every id.
        title: What a screen reader says and the pointer shows.
        size: Width and height, in CSS pixels.
    """
    inches = size[0] / 72, size[1] / 72
    with styled("inline", {"svg.hashsalt": name}):
        drawing = Drawing(Figure(figsize=inches, layout="constrained"))
        yield drawing
        file = io.StringIO()
        drawing.figure.savefig(file, format="svg", transparent=True, metadata=_METADATA)
    drawing.svg = _inline(file.getvalue(), name, title, size)


@contextmanager
def styled(name: str, more: dict[str, str] | None = None) -> Iterator[None]:
    """A style that lies beside this file, whatever the user's matplotlibrc says."""
    file = resources.files("mtbkd.app.report") / f"{name}.mplstyle"
    with style.context([str(file), more or {}], after_reset=True):
        yield


def quiet(axes: Axes, grid: str = "y", ticks: int | None = None) -> None:
    """Leave the axes a base line, a grid in one direction ("x", "y" or "both"), and few ticks."""
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0, pad=5)
    if grid != "both":
        axes.grid(visible=False, axis="y" if grid == "x" else "x")
    if ticks:
        axes.xaxis.set_major_locator(MaxNLocator(ticks))


def diagonal(axes: Axes, most: float = 1.0) -> None:
    """The line on which what is stated is what is observed."""
    axes.plot([0, most], [0, most], color=ROLE["muted"], linewidth=1, linestyle=DASHED)


def legend(figure: Figure, columns: int = 1) -> None:
    """Above the figure, on the left."""
    figure.legend(loc="outside upper left", ncols=columns)


def _inline(svg: str, name: str, title: str, size: tuple[float, float]) -> str:
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = body[body.index(">") + 1 :]
    # groups carry ids that nothing refers to, and every figure has the same ones
    body = re.sub(r'<g id="[^"]*">', "<g>", body)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'href="#', f'href="#{name}-', body)
    body = re.sub(r"(font(?:-family)?: [^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1var(--sans)", body)
    body = re.sub(r"#0[ab]00[0-9a-f]{2}", lambda found: _VARIABLES.get(found[0], found[0]), body)
    width, height = (f"{side:g}" for side in size)
    label = escape(title, quote=True)
    return (
        f'<svg viewBox="0 0 {width} {height}" style="max-width: {width}px" role="img" '
        f'aria-label="{label}"><title>{label}</title>{body.strip()}'
    )
