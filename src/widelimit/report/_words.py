"""Numbers and verdicts in words, for the page and the terminal alike."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "duration",
    "exponent",
    "headline",
    "marked_up",
    "measured",
    "number",
    "plain_symbols",
    "score",
    "theory",
]

_SUPERSCRIPT = str.maketrans("-\N{MINUS SIGN}0123456789", "⁻⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# One letter (fan_in and run_figure are names, not symbols), a norm, a derivative or an extremum with its index.
_SUBSCRIPTED = re.compile(
    r"((?<![A-Za-z_])[A-Za-zα-ωΑ-Ωµ]\u0302?|[‖²]|\b(?:sup|inf|max|min))_(max|min|std|op|out|NNGP|NTK|[A-Za-z0-9θ∞])(?!\w)"
)
_SUBSCRIPT = {**{str(d): chr(0x2080 + d) for d in range(10)}, "t": "ₜ", "i": "ᵢ"}


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def number(value: float | None, digits: int = 3) -> str:
    """A number in few digits; an en dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return _minus(f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}")
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    return _minus(mantissa) + "·10" + str(int(power)).translate(_SUPERSCRIPT)


def duration(seconds: float | None) -> str:
    """0.03 s, 12 s, 4 min 5 s, 1 h 2 min."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 1e-3:
        return "under 1 ms"
    if seconds < 9.95:
        return f"{seconds:.2g} s" if seconds < 0.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def exponent(fit: Mapping[str, Any]) -> str:
    """A fitted exponent with its confidence interval: −0.49 [−0.55, −0.43]."""
    low, high = fit["ci"]
    return _minus(f"{fit['slope']:.2f} [{low:.2f}, {high:.2f}]")


def measured(claim: Mapping[str, Any]) -> str:
    """What the table says a claim measured: its exponent with interval, else its figure of merit."""
    if claim.get("exponent"):
        return exponent(claim["exponent"])
    return _minus_in_numbers(claim.get("value") or "–")


def theory(claim: Mapping[str, Any]) -> str:
    """The theoretical value, as words and, where there is one, as the exponent."""
    return claim.get("theory") or number(claim.get("theory_slope"))


def score(value: float | None, metric: str, se: float | None = None) -> str:
    """A score in the metric's own units: accuracy in per cent, R² as a number; ± its standard error."""
    if value is None or not math.isfinite(value):
        return "–"
    if metric == "accuracy":
        return f"{100 * value:.1f} %" + (f" ± {100 * se:.1f}" if se is not None else "")
    return _minus(f"{value:.3f}") + (f" ± {se:.3f}" if se is not None else "")


def headline(claims: Sequence[Mapping[str, Any]]) -> str:
    """One sentence: how many claims hold, how many fall short, how many were not judged."""
    count = {v: sum(c["verdict"] == v for c in claims) for v in ("holds", "falls short", "not judged")}
    judged = count["holds"] + count["falls short"]
    if not judged:
        return "No claim was judged."
    if not count["falls short"]:
        said = f"All {judged} claims judged hold." if judged > 1 else "The one claim judged holds."
    else:
        short = [c["id"] for c in claims if c["verdict"] == "falls short"]
        names = f"claim {short[0]} falls" if len(short) == 1 else f"claims {', '.join(short)} fall"
        said = f"{count['holds']} of {judged} claims judged hold; {names} short."
    if count["not judged"]:
        said += f" {count['not judged']} " + ("was" if count["not judged"] == 1 else "were") + " not judged."
    return said


def _minus_in_numbers(text: str) -> str:
    """Typographic minus signs before digits (not within words), and 1.5e-06 as 1.5·10⁻⁶."""
    text = re.sub(r"(?<![\w.])(\d+(?:\.\d+)?)e([+-]?)0*(\d+)(?!\w)", _power, text)
    return re.sub(r"(?<![\w\d.])-(?=[\d.½¼])", "\N{MINUS SIGN}", text)


def _power(number: re.Match[str]) -> str:
    power = "10" + (number[2].replace("+", "") + number[3]).translate(_SUPERSCRIPT)
    return power if number[1] == "1" else f"{number[1]}·{power}"


def marked_up(text: str) -> str:
    """Escaped HTML in which ``N^-½`` has a superscript and ``λ_max`` a subscript."""
    out = html.escape(_minus_in_numbers(str(text)), quote=True)
    out = re.sub(r"\^\{([^}]*)\}", lambda m: f"<sup>{_minus(m[1])}</sup>", out)
    out = re.sub(r"\^([-−]?(?:\d+\.\d+|[\w½¼∞]+))", lambda m: f"<sup>{_minus(m[1])}</sup>", out)
    return _SUBSCRIPTED.sub(r"\1<sub>\2</sub>", out)


def plain_symbols(text: str) -> str:
    """``N^-½`` as N⁻½ and ``λ_i`` as λᵢ where Unicode has the signs, for text that cannot be marked up."""
    text = re.sub(r"\^([-−]?[0-9]*½?)(?![\w.])", lambda m: m[1].translate(_SUPERSCRIPT) if m[1] else "^", text)
    if all(sub in _SUBSCRIPT for sub in re.findall(r"(?<=\w)_([A-Za-z0-9]+)", text)):
        text = re.sub(r"(?<=\w)_([A-Za-z0-9]+)", lambda m: _SUBSCRIPT[m[1]], text)
    return _minus_in_numbers(text)
