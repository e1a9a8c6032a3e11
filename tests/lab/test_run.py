"""A whole run of small size: every experiment, verdict and figure, against the schema of the results."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from widelimit import lab
from widelimit.lab import _settings
from widelimit.lab._claims import claims_for
from widelimit.lab._verdicts import judge
from widelimit.lab.experiments import EXPERIMENTS, _prediction, _rich, _spectrum

SMALL = {
    "seeds_most": 4, "steps": 48, "init_seeds": 4, "draws": 4000, "ensemble": 12, "sizes": (30, 60),
    "prediction_widths": (16, 32), "prediction_steps": 40,
}  # fmt: skip
WIDTHS = (16, 32, 64)


@pytest.fixture(scope="module")
def small():
    with pytest.MonkeyPatch.context() as patch:
        quick = dataclasses.replace(_settings.EFFORT["quick"], **SMALL)
        patch.setitem(_settings.EFFORT, "quick", quick)
        for module, name, value in (
            (_rich, "STEPS", 20), (_rich, "TRAINING", 60), (_rich, "HELD_OUT", 100),
            (_prediction, "HELD_OUT", 100), (_spectrum, "POINTS", 65),
        ):  # fmt: skip
            patch.setattr(module, name, value)
        yield lab.Settings(effort="quick", widths=WIDTHS, seeds=2)


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    events, figures = [], []
    out = tmp_path_factory.mktemp("lab")

    def figure_made(figure):
        figures.append((events[-1]["job"], figure))

    return lab.run(small, out, events.append, figure_made), events, out, figures


def _numbers(value):
    if isinstance(value, dict):
        for v in value.values():
            yield from _numbers(v)
    elif isinstance(value, list):
        for v in value:
            yield from _numbers(v)
    elif isinstance(value, float):
        yield value


def test_document(whole):
    document, _, out, _ = whole
    assert [r["error"] for r in document["experiments"]] == [None] * len(EXPERIMENTS)
    assert document["complete"]
    assert document["schema"] == 1
    assert document["kind"] == "lab"
    assert all(math.isfinite(v) for v in _numbers(document))
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == document
    assert document["settings"]["W_std"] == 1.5
    assert document["network"]["limit"]["lambda_max"] > document["network"]["limit"]["lambda_min"] > 0
    assert document["network"]["parameters"][0] == {"width": 16, "parameters": 64 * 16 + 16 * 16 + 16}
    namespace: dict = {}
    exec(document["network"]["code"], namespace)
    assert namespace["net"] is not None


def test_figures_are_made_as_soon_as_they_can_be(whole):
    document, _, _, figures = whole
    assert {figure["id"]: figure for _, figure in figures} == document["figures"]
    made = {figure["id"]: job for job, figure in figures}
    assert made["F3"] == "initialisation"
    assert made["F5"] == "training"  # it needs both
    assert made["F16"] == "rates"


def test_claims(whole):
    document = whole[0]
    assert [c["id"] for c in document["claims"]] == [c.id for c in lab.CLAIMS]
    for claim in document["claims"]:
        assert claim["verdict"] in ("holds", "falls short", "not judged")
        assert claim["sentence"]
        if claim["exponent"]:
            assert claim["exponent"]["ci"][0] <= claim["exponent"]["slope"] <= claim["exponent"]["ci"][1]
    by_id = {c["id"]: c for c in document["claims"]}
    # What is exact is exact at any size; what is a trend at large width is not judged at these widths.
    assert [by_id[i]["verdict"] for i in ("4", "9", "10")] == ["holds"] * 3
    assert by_id["3"]["verdict"] == "not judged"
    assert "width 64" in by_id["3"]["sentence"]


def _check_lines(panel):
    assert panel["series"]
    for s in panel["series"]:
        assert s["style"] in ("line", "dashed", "dotted", "points", "guide", "band", "thin")
        assert len(s["x"]) == len(s["y"])
        for bound in ("low", "high"):
            assert s[bound] is None or len(s[bound]) == len(s["x"])
        for axis in ("x", "y"):
            if panel[f"{axis}scale"] == "log" and s["style"] != "band":
                assert all(v is None or v > 0 for v in s[axis]), (panel["title"], s["label"])


def test_figures(whole):
    figures = whole[0]["figures"]
    assert list(figures) == list(lab.FIGURES)
    for name, figure in figures.items():
        assert figure["id"] == name
        assert figure["see"].endswith(".")
        assert figure["panels"]
        for panel in figure["panels"]:
            if panel["kind"] == "lines":
                _check_lines(panel)
            else:
                assert panel["kind"] == "image"
                assert len({len(row) for row in panel["values"]}) == 1


def test_prediction(whole):
    prediction = whole[0]["prediction"]
    assert prediction["task"] == "classes"
    assert prediction["sizes"] == [30, 60]
    assert {r["family"] for r in prediction["rows"]} == {
        "ntk",
        "ntk_t",
        "nngp",
        "network",
        "network_random_start",
    }
    for row in prediction["rows"]:
        assert 0 <= row["score"] <= 1
        assert row["seconds"] > 0
    kernel = next(r for r in prediction["rows"] if r["family"] == "ntk" and r["n"] == 60)
    assert kernel["score"] > 0.5  # ten classes: chance is 0.1
    assert kernel["train_mse"] < 1e-12


def test_progress(whole):
    events = whole[1]
    fractions = [e["fraction"] for e in events]
    assert fractions == sorted(fractions)
    assert events[-1]["event"] == "finished"
    assert events[-1]["fraction"] == 1.0
    assert [e["job"] for e in events if e["event"] == "start"] == list(EXPERIMENTS)
    assert all(e["seconds_left"] is None or e["seconds_left"] >= 0 for e in events)


def test_one_figure_from_what_is_there(whole, small):
    document = lab.run_figure("f6", small, whole[2])
    assert document["kind"] == "figure"
    assert list(document["figures"]) == ["F6"]
    assert [r["resumed"] for r in document["experiments"]] == [True]
    assert document["figures"]["F6"] == whole[0]["figures"]["F6"]
    with pytest.raises(lab.SettingsError, match="unknown figure 'F99'; there are F2"):
        lab.run_figure("F99", small)


def test_a_figure_that_cannot_be_drawn_is_listed(whole, small, monkeypatch):
    def broken(results):
        raise ValueError("nothing to draw")

    monkeypatch.setitem(lab.FIGURES, "F3", dataclasses.replace(lab.FIGURES["F3"], build=broken))
    document = lab.run(dataclasses.replace(small, claims=("2",)), whole[2])
    assert document["figures"] == {}
    assert not document["complete"]
    assert document["experiments"][-1]["error"] == "ValueError: nothing to draw"


def test_some_claims_only(whole, small):
    document = lab.run(dataclasses.replace(small, claims=("10", "2")), whole[2])
    assert [c["id"] for c in document["claims"]] == ["2", "10"]
    assert document["prediction"] is None
    assert list(document["figures"]) == ["F3"]


def test_an_experiment_that_fails_does_not_stop_the_others(small, monkeypatch):
    def broken(context):
        raise FloatingPointError("overflow in the second layer")

    monkeypatch.setitem(EXPERIMENTS, "linear", dataclasses.replace(EXPERIMENTS["linear"], run=broken))
    document = lab.run(dataclasses.replace(small, claims=("4", "10")))
    assert not document["complete"]
    verdicts = {c["id"]: c for c in document["claims"]}
    assert verdicts["4"]["verdict"] == "holds"
    assert verdicts["10"]["verdict"] == "not judged"
    assert "overflow in the second layer" in verdicts["10"]["sentence"]


def _results(whole):
    folder = whole[2] / "experiments"
    return {p.stem: json.loads(p.read_text(encoding="utf-8"))["result"] for p in folder.glob("[a-z]*.json")}


def _claim(name):
    return next(c for c in lab.CLAIMS if c.id == name)


@pytest.mark.parametrize(
    ("claim", "spoil"),
    [
        ("1", lambda r: r["gaussian"].update(kurtosis=[1.0, 0.1, 0.01])),
        ("4", lambda r: r["flow"].update(error=[[0.1] * len(r["flow"]["steps"])] * 3)),
        ("9", lambda r: r["closed_form"].update(flow_error=1e-7)),
        ("10", lambda r: r["linear"].update(drift=1e-13)),
        ("12", lambda r: r["rich"].update(kernel=0.999)),
    ],
)
def test_spoiled_results_fall_short(whole, claim, spoil):
    results = _results(whole)
    spoil(results)
    assert judge(_claim(claim), results, {}, 0.0)["verdict"] == "falls short"


def _power(slope, widths, seeds=4):
    rng = np.random.default_rng(1)
    return [list(w**slope * np.exp(0.01 * rng.standard_normal(seeds))) for w in widths]


@pytest.mark.parametrize(("slope", "verdict"), [(-1.0, "holds"), (-0.5, "falls short")])
def test_drift_is_judged_by_its_exponent(slope, verdict):
    widths = (128, 256, 512, 1024)
    rows = [{"width": w, "drift": d} for w, d in zip(widths, _power(slope, widths), strict=True)]
    entry = judge(_claim("3"), {"training": {"widths": rows}}, {}, 0.0)
    assert entry["verdict"] == verdict
    assert entry["exponent"]["slope"] == pytest.approx(slope, abs=0.05)


@pytest.mark.parametrize(("slope", "verdict"), [(-0.55, "holds"), (-0.3, "falls short")])
def test_drift_of_relu_is_judged_by_the_law_of_kinks(slope, verdict):
    widths = (128, 256, 512, 1024)
    rows = [{"width": w, "drift": d} for w, d in zip(widths, _power(slope, widths), strict=True)]
    relu = {c.id: c for c in claims_for("relu")}
    assert {i for i, c in relu.items() if c != _claim(i)} == {"3", "5", "11", "A", "C"}
    assert "≤ -0.4" in relu["3"].acceptance and "N^-½" in relu["3"].theory
    entry = judge(relu["3"], {"training": {"widths": rows}}, {}, 0.0)
    assert (entry["verdict"], entry["theory_slope"]) == (verdict, -0.5)


@pytest.mark.parametrize(("slope", "verdict"), [(0.0, "holds"), (-1.0, "falls short")])
def test_catapult_needs_a_drift_that_stays(slope, verdict):
    widths = (128, 256, 512, 1024)
    converged = [[1e-9] * 4] * 4
    rows = [{"eta": e, "drift": _power(slope, widths), "ratio": converged} for e in (2.5, 3.5)]
    rows.append({"eta": 16.0, "drift": [[None] * 4] * 4, "ratio": [[None] * 4] * 4})
    entry = judge(_claim("B"), {"rates": {"widths": widths, "rows": rows}}, {}, 0.0)
    assert entry["verdict"] == verdict
