"""Figures: every one of the lab's can be drawn, repeatably, and without touching matplotlib's global state."""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from widelimit import report
from widelimit.report._style import PALETTE, SHADES, SHADES_DARK, log_ticks, tick_text
from widelimit.report._svg import inline_svg

NAMES = ["F2", "F3", "F5", "F6", "F7", "F9", "F11", "F12", "F13", "F14", "F16"]


def luminance(colour):
    """Relative luminance of the WCAG."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def contrast(a, b):
    bright, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_the_example_has_every_figure(results):
    assert list(results["figures"]) == NAMES


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_each_figure_draws_every_panel_and_stays_small(results, name, narrow):
    figure = results["figures"][name]
    drawn = report.draw(figure, narrow=narrow)
    titles = [a.get_title(loc="left") for a in drawn.axes]
    assert all(report.plain_symbols(p["title"]) in titles for p in figure["panels"])
    width, _ = drawn.get_size_inches()
    assert (width < 4) == narrow
    svg = report.figure_svg(drawn)
    ElementTree.fromstring(svg)
    assert len(svg) < 200_000


def test_nothing_is_drawn_outside_the_canvas(results):
    for figure in results["figures"].values():
        for narrow in (False, True):
            drawn = report.draw(figure, narrow=narrow)
            box, canvas = drawn.get_tightbbox(), drawn.get_size_inches()
            assert box.x0 > -0.01 and box.y0 > -0.01, figure["id"]
            assert box.x1 < canvas[0] + 0.01 and box.y1 < canvas[1] + 0.01, figure["id"]


def test_the_same_figure_gives_the_same_bytes(results):
    one, other = (report.figure_svg(report.draw(results["figures"]["F16"]), salt="F16") for _ in range(2))
    assert one == other


def test_global_settings_are_neither_used_nor_changed(results):
    plain = report.figure_svg(report.draw(results["figures"]["F6"]))
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        assert report.figure_svg(report.draw(results["figures"]["F6"])) == plain
        assert dict(matplotlib.rcParams) == before


def test_unknown_values_leave_gaps_and_infinite_runs_do_not_stop_a_figure(results):
    figure = results["figures"]["F6"]
    for series in figure["panels"][0]["series"]:
        series["y"] = [None] * len(series["y"])
    results["figures"]["F5"]["panels"][0]["values"] = [[None] * 8 for _ in range(8)]
    for name in ("F5", "F6"):
        assert report.figure_svg(report.draw(results["figures"][name]))


def test_a_panel_of_unknown_kind_is_refused(results):
    results["figures"]["F6"]["panels"][0]["kind"] = "pie"
    with pytest.raises(ValueError, match="'pie' is not known"):
        report.draw(results["figures"]["F6"])


def test_dense_faint_lines_become_a_picture(results):
    figure = results["figures"]["F2"]
    x = np.linspace(-3, 3, 1000).tolist()
    figure["panels"][0]["series"] = [
        {"label": "", "style": "thin", "x": x, "y": np.sin(np.add(x, k)).tolist(), "low": None, "high": None}
        for k in range(100)
    ]
    svg = report.figure_svg(report.draw(figure))
    assert "data:image/png" in svg and len(svg) < 500_000


def test_panels_that_share_an_entry_share_one_legend(results):
    drawn = report.draw(results["figures"]["F9"])
    assert len(drawn.legends) == 1 and all(a.get_legend() is None for a in drawn.axes)
    assert [t.get_text() for t in drawn.legends[0].get_texts()] == [
        "network, N = 1024", "linearised", "closed form, own K̂", "infinite kernel",
    ]  # fmt: skip
    each = [a.get_legend() is not None for a in report.draw(results["figures"]["F7"]).axes]
    assert each == [True, True, False]


@pytest.mark.parametrize("crossing", [False, True])
def test_a_legend_never_stands_on_data(results, crossing):
    panel = results["figures"]["F6"]["panels"][0]
    panel |= {"xscale": "linear", "yscale": "linear", "xlim": [0, 10], "ylim": [0, 10]}
    ys = [[0.2, 9.8], [9.8, 0.2], [5, 5], [2, 2], [8, 8]] if crossing else [[0.2, 0.3]] * 5
    for series, y in zip(panel["series"], ys, strict=True):
        series |= {"x": [0, 10], "y": y}
    drawn = report.draw({"id": "F6", "panels": [panel], "columns": 1})
    (axis,) = drawn.axes
    top = axis.get_legend().get_window_extent().y1
    assert (top < axis.get_window_extent().y0) == crossing
    assert drawn.get_tightbbox().y0 > -0.01


def test_matrices_of_one_scale_share_one_colour_bar(results):
    drawn = report.draw(results["figures"]["F5"])
    assert [len(a.child_axes) for a in drawn.axes] == [0, 0, 0, 1, 0, 0, 0, 1]  # the second in the empty cell


def test_one_series_far_below_does_not_flatten_the_rest(results):
    panel = results["figures"]["F13"]["panels"][0]
    low, high = report.draw({"id": "F13", "panels": [panel], "columns": 1}).axes[0].get_ylim()
    assert high / low < 1e14 and high > 1


@pytest.mark.parametrize(
    "low, high, ticks", [(0.9, 1100, [1, 10, 100, 1000]), (0.8, 25, [1, 3, 10]), (0.9, 7, [1, 2, 5])]
)
def test_log_ticks_are_round_and_few(low, high, ticks):
    assert log_ticks(low, high) == pytest.approx(ticks)


def test_log_ticks_of_a_very_short_and_a_very_long_axis():
    assert 2 <= len(log_ticks(3.1, 3.9)) <= 6
    assert 2 <= len(log_ticks(1e-14, 1e3)) <= 9


def test_tick_text():
    assert [tick_text(v) for v in (1e-6, 3e-4, 0.01, 5, 1024, 1e5, -1e-3)] == [
        "10⁻⁶", "3·10⁻⁴", "0.01", "5", "1024", "10⁵", "−10⁻³",
    ]  # fmt: skip


def test_colours_can_be_told_from_the_paper_in_both_schemes():
    assert all(contrast(c, "#ffffff") > 3 for c in PALETTE[:5])
    assert all(contrast(c, "#ffffff") > 1.8 for c in SHADES)
    assert all(contrast(c, "#14181d") > 1.8 for c in SHADES_DARK)


def test_inline_svg_has_unique_ids_variables_and_no_network(results):
    svg = report.figure_svg(report.draw(results["figures"]["F6"]))
    inline = inline_svg(svg, prefix="F6w", description='a "b" <c>')
    ids = re.findall(r'\bid="([^"]+)"', inline)
    assert ids and len(ids) == len(set(ids)) and all(i.startswith("F6w-") for i in ids)
    assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', inline)) <= {(i, "") for i in ids} | {
        ("", i) for i in ids
    }
    assert "http" not in inline and "var(--f-ink," in inline and "<style" not in inline
    assert 'aria-label="a &quot;b&quot; &lt;c&gt;"' in inline
    assert not re.search(r"\d\.\d{3,}", " ".join(re.findall(r' d="([^"]*)"', inline)))


def test_save_figure(results, tmp_path):
    written = report.save_figure(report.draw(results["figures"]["F3"]), tmp_path, "F3", kinds=("svg", "pdf", "png"))
    heads = [p.read_bytes()[:5] for p in written]
    assert [p.name for p in written] == ["F3.svg", "F3.pdf", "F3.png"]
    assert heads == [b"<?xml", b"%PDF-", b"\x89PNG\r"]


def test_report_needs_neither_jax_nor_pyplot():
    code = (
        "import sys, types; package = types.ModuleType('widelimit'); import importlib.util as u; "
        "package.__path__ = list(u.find_spec('widelimit').submodule_search_locations); "
        "sys.modules['widelimit'] = package; import widelimit.report; "
        "print([m for m in ('jax', 'matplotlib.pyplot', 'widelimit.lab') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
