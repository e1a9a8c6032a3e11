"""Fitted exponents and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from widelimit.diagnostics import fit_points, fit_samples
from widelimit.lab._measures import NotJudged, exponent

WIDTHS = (64, 128, 256, 512, 1024)


def test_exact_power_law():
    fit = fit_points(WIDTHS, 3.0 * np.array(WIDTHS, float) ** -0.7)
    assert fit["slope"] == pytest.approx(-0.7, abs=1e-12)
    assert np.exp(fit["intercept"]) == pytest.approx(3.0)
    assert fit["local"] == pytest.approx([-0.7] * 4)


def test_upper_widths_only():
    y = np.array(WIDTHS, float) ** -1.0
    y[0] *= 5  # spoils the narrowest network only
    assert fit_points(WIDTHS, y, upper=True)["slope"] == pytest.approx(-1.0)
    assert fit_points(WIDTHS, y, upper=True)["x"] == [128, 256, 512, 1024]
    assert fit_points((8, 512, 4096), (1.0, 0.5, 0.2), upper=True)["x"] == [8, 512, 4096]


# As many networks a width as a quick and a default run have, few, and with a scatter that falls with the width.
@pytest.mark.parametrize("seeds", [(32, 32, 24, 12, 6), (96, 96, 64, 32, 16), (6,) * 5, (2,) * 5])
@pytest.mark.parametrize("scatter", [0.0, 0.3])
def test_interval_covers_the_truth_as_often_as_it_says(seeds, scatter):
    rng = np.random.default_rng(0)
    hits = 0
    repeats = 400
    for _ in range(repeats):
        samples = [
            w**-0.5 * np.exp(0.3 * (64 / w) ** scatter * rng.standard_normal(n))
            for w, n in zip(WIDTHS, seeds, strict=True)
        ]
        low, high = fit_samples(WIDTHS, samples)["ci"]
        hits += low <= -0.5 <= high
    # 95 % nominal; four standard errors of the estimate below it.
    assert hits / repeats >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / repeats)


def test_a_measure_outside_its_band_does_not_pass():
    samples = [[w**-0.3, 1.02 * w**-0.3] for w in WIDTHS]
    assert exponent("drift", WIDTHS, samples, -1.0, None, -0.7)["passed"] is False
    assert exponent("drift", WIDTHS, samples, -0.3, -0.4, -0.2)["passed"] is True
    assert exponent("drift", WIDTHS, samples, -1.0, None, -0.7, judged=False)["passed"] is None


def test_values_that_are_not_finite_are_not_judged():
    samples = [[1.0, 2.0], [1.0, float("nan")], [1.0, 0.5]]
    with pytest.raises(NotJudged, match="1 of 6 values"):
        exponent("drift", WIDTHS[:3], samples, -1.0, None, -0.7)
