"""How a matplotlib figure becomes inline SVG that follows the page's light or dark colours.

Figures are painted in sentinel colours, one for each role; in the SVG they become the page's CSS
variables. Text stays text, in the page's font, and equal input gives equal bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_ROLES = ("ink", "muted", "line", "student", "pool", "wrong", "heat")
ROLE = {name: f"#0a00{i:02x}" for i, name in enumerate(_ROLES, start=1)}
"""The colour to paint in for each role of the page's palette."""

CHAINS = tuple(f"#0b00{i:02x}" for i in range(8))
"""The colours of chains, used in turn; ``--chain-0`` to ``--chain-7`` on the page."""

_VARIABLES = {colour: f"var(--{name})" for name, colour in ROLE.items()} | {
    colour: f"var(--chain-{i})" for i, colour in enumerate(CHAINS)
}
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": ROLE["line"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": ROLE["muted"],
    "axes.labelsize": 11,
    "axes.linewidth": 1.0,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "font.size": 11,
    "grid.color": ROLE["line"],
    "grid.linewidth": 0.8,
    "legend.edgecolor": "none",
    "legend.facecolor": "none",
    "legend.fontsize": 10.5,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.labelcolor": ROLE["ink"],
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "text.color": ROLE["ink"],
    "text.parse_math": False,
    "xtick.color": ROLE["line"],
    "xtick.labelcolor": ROLE["muted"],
    "xtick.labelsize": 10.5,
    "ytick.color": ROLE["line"],
    "ytick.labelcolor": ROLE["muted"],
    "ytick.labelsize": 10.5,
}
_METADATA = {key: None for key in ("Date", "Creator", "Format", "Type")}


def draw(name: str, title: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> str:
    """Paint a figure and return it as one ``<svg>`` element.

    Args:
        name: Unique on the page; prefixes every id.
        title: What a screen reader says and the pointer shows.
        size: Width and height, in CSS pixels.
        paint: Fills the figure, which has a constrained layout.
    """
    style: Any = _STYLE | {"svg.hashsalt": name}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
        matplotlib.rcParams.update(style)
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=_METADATA)
    return _inline(buffer.getvalue(), name, title, size)


def quiet(axes: Axes, grid: str = "y") -> None:
    """Leave the axes a base line and a grid in one direction ("x", "y" or "both")."""
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0, pad=5)
    if grid != "both":
        axes.grid(visible=False, axis="y" if grid == "x" else "x")


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
