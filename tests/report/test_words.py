"""Numbers and verdicts in words."""

from __future__ import annotations

import math

import pytest

from widelimit import report
from widelimit.report._words import marked_up


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "–"), (math.nan, "–"), (math.inf, "–"), (0, "0"), (0.12345, "0.123"), (-15.26, "−15.3"), (1797, "1797"),
        (3.1e-11, "3.10·10⁻¹¹"), (-2e7, "−2.00·10⁷"), (99999, "99999"),
    ],
)  # fmt: skip
def test_number(value, text):
    assert report.number(value) == text


@pytest.mark.parametrize(
    "seconds, text",
    [(None, "–"), (0.00039, "under 1 ms"), (0.032, "0.032 s"), (3.14, "3.1 s"), (59.7, "1 min 0 s"), (12.2, "12 s"), (245, "4 min 5 s"),
     (3725, "1 h 2 min")],
)  # fmt: skip
def test_duration(seconds, text):
    assert report.duration(seconds) == text


def test_exponent_and_measured():
    fit = {"slope": -0.4949, "ci": [-0.55, -0.434]}
    assert report.exponent(fit) == "−0.49 [−0.55, −0.43]"
    assert report.measured({"exponent": fit, "value": "x"}) == "−0.49 [−0.55, −0.43]"
    assert report.measured({"exponent": None, "value": "error 3e-11 at -2"}) == "error 3·10⁻¹¹ at −2"
    assert report.measured({"exponent": None, "value": None}) == "–"


def test_score():
    assert report.score(0.9031, "accuracy", 0.0042) == "90.3 % ± 0.4"
    assert report.score(-0.12, "R²") == "−0.120"
    assert report.score(None, "R²") == "–"


@pytest.mark.parametrize(
    "verdicts, text",
    [
        ([], "No claim was judged."),
        (["holds"] * 3, "All 3 claims judged hold."),
        (["holds"], "The one claim judged holds."),
        (["holds", "falls short"], "1 of 2 claims judged hold; claim 1 falls short."),
        (["falls short", "falls short", "holds"], "1 of 3 claims judged hold; claims 0, 1 fall short."),
        (["holds", "holds", "not judged"], "All 2 claims judged hold. 1 was not judged."),
        (["not judged", "not judged"], "No claim was judged."),
    ],
)
def test_headline(verdicts, text):
    assert report.headline([{"id": str(i), "verdict": v} for i, v in enumerate(verdicts)]) == text


def test_marked_up():
    assert marked_up("‖K_t − K_0‖_F ~ N^-½ & λ_max < 3") == (
        "‖K<sub>t</sub> − K<sub>0</sub>‖<sub>F</sub> ~ N<sup>−½</sup> &amp; λ<sub>max</sub> &lt; 3"
    )
    assert marked_up("N^-0.5, e^{-ηλ t}, f_t^∞") == ("N<sup>−0.5</sup>, e<sup>−ηλ t</sup>, f<sub>t</sub><sup>∞</sup>")
    assert marked_up("sup_t ‖∇²f‖_op, ∇²_θ f, μ_T, I_out, K_NNGP") == (
        "sup<sub>t</sub> ‖∇²f‖<sub>op</sub>, ∇²<sub>θ</sub> f, μ<sub>T</sub>, I<sub>out</sub>, K<sub>NNGP</sub>"
    )
    assert marked_up("run_figure, max_learning_rate, fan_in") == "run_figure, max_learning_rate, fan_in"
    assert marked_up("<script>") == "&lt;script&gt;"


def test_plain_symbols():
    assert report.plain_symbols("N^-½ and N^-1") == "N⁻½ and N⁻¹"
    assert report.plain_symbols("‖K_t − K_0‖") == "‖Kₜ − K₀‖"
    assert report.plain_symbols("1e-8, -1.51e-06, 4e5, e-3, 0x1e-2") == "10⁻⁸, −1.51·10⁻⁶, 4·10⁵, e-3, 0x1e-2"
    assert report.plain_symbols("|u_iᵀ(y − f_t)|") == "|uᵢᵀ(y − fₜ)|"
    assert report.plain_symbols("K_T − K_0") == "K_T − K_0"
    assert report.plain_symbols("slope in [-0.6, -½], 3e-8, x-y") == "slope in [−0.6, −½], 3·10⁻⁸, x-y"
