"""Settings are checked before any work."""

from __future__ import annotations

import pytest

from widelimit import lab
from widelimit.lab import Settings, SettingsError


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"activation": "swoosh"}, "unknown activation 'swoosh'; the lab knows erf"),
        ({"widths": (64, 128.5, 256)}, "must be integers, and 128.5"),
        ({"widths": ("64", 128, 256)}, "must be integers, and '64'"),
        ({"widths": "64,128,256"}, "must be a list of integers"),
        ({"widths": (64, 128)}, "at least 3 widths"),
        ({"widths": (64, 256, 128)}, "must increase"),
        ({"widths": (1, 2, 3)}, "between 4 and 65536"),
        ({"depth": 0}, "depth"),
        ({"depth": 2.0}, "depth"),
        ({"seeds": 1}, "seeds"),
        ({"W_std": 0.0}, "W_std must be a finite positive number"),
        ({"W_std": float("nan")}, "W_std"),
        ({"b_std": -1.0}, "b_std must be a finite non-negative number"),
        ({"claims": ("2", "99")}, "unknown claim '99'; there are 1, 2"),
        ({"claims": ()}, "claims is empty"),
        ({"effort": "lazy"}, "effort must be one of quick, default, full"),
        ({"seed": -1}, "seed"),
        ({"data": ""}, "data must be"),
    ],
)
def test_refused_with_a_reason(change, says):
    with pytest.raises(SettingsError) as error:
        Settings(**change)
    assert says in str(error.value)


def test_claims_are_put_in_order_and_any_case():
    assert Settings(claims=("c", "5B", "2")).claims == ("2", "5b", "C")


def test_resolved_fills_what_has_a_default():
    s = Settings(activation="relu", effort="quick").resolved()
    assert s.W_std == pytest.approx(2**0.5)
    assert s.widths == (64, 128, 256, 512, 1024)
    assert s.seeds == s.seeds_at(1024)


def test_narrow_networks_get_more_seeds_up_to_a_bound():
    s = Settings(effort="quick", widths=(64, 128, 1024), seeds=4)
    assert s.seeds_at(1024) == 4
    assert s.seeds_at(128) == 32
    assert s.seeds_at(64) == s.sizes.seeds_most


def test_every_claim_names_experiments_and_figures_that_exist():
    from widelimit.lab.experiments import EXPERIMENTS

    assert [c.id for c in lab.CLAIMS] == [
        "1",
        "2",
        "3",
        "4",
        "5",
        "5b",
        "5c",
        "6",
        "7",
        "8",
        "9",
        "10",
        "11",
        "12",
        "14",
        "A",
        "B",
        "C",
    ]
    for claim in lab.CLAIMS:
        assert set(claim.experiments) <= set(EXPERIMENTS)
        assert set(claim.figures) <= set(lab.FIGURES)
    for figure in lab.FIGURES.values():
        assert set(figure.experiments) <= set(EXPERIMENTS)
        assert set(figure.claims) <= {c.id for c in lab.CLAIMS}
    wanted = {"F2", "F3", "F5", "F6", "F7", "F9", "F11", "F12", "F13", "F14", "F16"}
    assert wanted <= set(lab.FIGURES)
