"""The house style of the figures: colours, type, axes; matplotlib's global state is left as it was."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from widelimit.report._words import plain_symbols

INK = "#1d232b"
QUIET = "#66707c"
GRID = "#dfe3e8"
PAPER = "#fefefe"

# Okabe and Ito's hues, which every kind of colour vision tells apart, darkened where thin lines need it.  Each has
# its own marker, so that colour is never the only difference.
PALETTE = ("#0067a5", "#d1590a", "#0a8a63", "#a8478f", "#8a6d00", "#3f9fc9", "#5d6671")
PALETTE_DARK = ("#6cb6f0", "#f59a55", "#4cc9a0", "#df8fca", "#d9b94a", "#9fd8ee", "#aab3bd")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

SHADES_COUNT = 16
SIZE = 8.6
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _ramp(low: float, high: float) -> tuple[str, ...]:
    viridis = matplotlib.colormaps["viridis"]
    steps = (low + (high - low) * i / (SHADES_COUNT - 1) for i in range(SHADES_COUNT))
    return tuple(to_hex(viridis(s)) for s in steps)


# Ordered things (widths, times): the last is the one that stands out most from the paper.
SHADES = _ramp(0.78, 0.03)
SHADES_DARK = _ramp(0.34, 0.98)


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's defaults and our type, whatever the user's own settings are; both are restored at the end."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.family": "DejaVu Sans",
                "font.size": SIZE,
                "text.color": INK,
                "axes.labelcolor": INK,
                "axes.unicode_minus": True,
                "text.parse_math": False,
                "svg.fonttype": "none",
                "svg.image_inline": True,
                "pdf.fonttype": 42,
                "savefig.facecolor": "auto",
            }
        )
        yield


def dress(axis: Axes) -> None:
    """Quiet frame, faint grid, small type."""
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(QUIET)
        axis.spines[side].set_linewidth(0.8)
    axis.set_facecolor("none")
    axis.grid(True, color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(colors=INK, labelcolor=INK, labelsize=SIZE - 0.8, width=0.8, length=3, color=QUIET)


def label(axis: Axes, x: str, y: str, title: str) -> None:
    """Axis labels and the panel's title."""
    x, y, title = plain_symbols(x), plain_symbols(y), plain_symbols(title)
    axis.set_xlabel(x, fontsize=SIZE, color=INK)
    axis.set_ylabel(y, fontsize=SIZE, color=INK)
    if title:
        axis.set_title(title, fontsize=SIZE + 0.6, color=INK, loc="left", pad=7)


def shade(position: float) -> str:
    """Colour of an ordered thing at ``position`` between 0 and 1."""
    return SHADES[round(min(max(position, 0.0), 1.0) * (SHADES_COUNT - 1))]


def tick_text(value: float, _position: int | None = None) -> str:
    """Plain numbers from 0.01 to 9999, 10⁻³, 3·10⁵ and the like beyond."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else ""
    if 1e-2 <= abs(value) < 1e4:
        return f"{value:g}".replace("-", "\N{MINUS SIGN}")
    mantissa, power = f"{value:.0e}".split("e")
    power = str(int(power)).translate(SUPERSCRIPT)
    text = f"10{power}" if mantissa in ("1", "-1") else f"{mantissa.lstrip('-')}·10{power}"
    return ("\N{MINUS SIGN}" if value < 0 else "") + text


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Few round ticks between ``low`` and ``high``: powers of ten, or 1-3 and 1-2-5 steps in a short range."""
    span = math.log10(high) - math.log10(low)
    digits: Sequence[float] = (1,) if span > 2.4 else (1, 3) if span > 1.1 else (1, 2, 5) if span > 0.6 else ()
    if not digits:
        linear = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        return [float(t) for t in linear if low <= t <= high and t > 0]
    every = max(1, math.ceil(span / most)) if span > 2.4 else 1
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [d * 10.0**p for p in powers if p % every == 0 for d in digits if low <= d * 10.0**p <= high]


def log_axis(axis: Axes, which: str, at: Sequence[float] | None = None) -> None:
    """A logarithmic axis with few, readable ticks (``at``: exactly there); call it when all is drawn."""
    one = axis.xaxis if which == "x" else axis.yaxis
    low, high = sorted(axis.get_xlim() if which == "x" else axis.get_ylim())
    one.set_major_locator(FixedLocator(list(at) if at is not None else log_ticks(low, high)))
    one.set_major_formatter(FuncFormatter(tick_text))
    one.set_minor_locator(NullLocator())
    one.set_minor_formatter(NullFormatter())


def linear_axis(axis: Axes, which: str) -> None:
    """A linear axis with few ticks."""
    one = axis.xaxis if which == "x" else axis.yaxis
    one.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    one.set_major_formatter(FuncFormatter(_linear_text))


def _linear_text(value: float, _position: int | None = None) -> str:
    return f"{value:.6g}".replace("-", "\N{MINUS SIGN}") if abs(value) < 1e5 else tick_text(value)
