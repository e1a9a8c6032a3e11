"""The page: complete, self-contained, small, and sound HTML."""

from __future__ import annotations

import html.parser
import json
import re

import pytest

from widelimit import report

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Checker(html.parser.HTMLParser):
    """Tags must nest; ids must be unique; links within the page must lead somewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.targets, self.addresses, self.faults = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href", "action"):
                (self.targets if value.startswith("#") else self.addresses).append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append((tag, self.getpos()))


def check(text):
    checker = Checker()
    checker.feed(text)
    assert not checker.faults and not checker.open
    assert len(checker.ids) == len(set(checker.ids))
    assert {t[1:] for t in checker.targets} <= set(checker.ids)
    assert all(a.startswith("data:") for a in checker.addresses)
    return checker


def test_the_page_is_sound_self_contained_and_small(written):
    text = written[0].read_text(encoding="utf-8")
    check(text)
    assert len(text.encode()) < 5_000_000
    assert "<script" not in text and "http://" not in text and "https://" not in text and "@import" not in text
    assert "default-src 'none'" in text and 'name="viewport"' in text and "prefers-color-scheme:dark" in text


def test_the_page_holds_every_claim_figure_and_setting(results, written):
    text = written[0].read_text(encoding="utf-8")
    for claim in results["claims"]:
        assert f'id="claim-{claim["id"]}"' in text
    for name, figure in results["figures"].items():
        assert f'<figure id="{name}">' in text
        assert figure["title"].split("'")[0] in text
    assert "16 of 17 claims judged hold; claim 5b falls short. 1 was not judged." in text
    assert "−0.48 [−0.52, −0.44]" in text and "N<sup>−½</sup>" in text
    assert "82.5 % ± 0.4" in text and "<b>95.2 % (theory 95.4 %)</b>" in text
    assert "NTK &amp; NNGP &lt;error&gt;" in text
    assert all(c["text"].split(",")[0] in text for c in results["conventions"])
    assert results["data"]["sha256"] in text


def test_a_page_of_one_figure_and_a_page_without_prediction(results):
    results |= {
        "kind": "figure",
        "claims": [],
        "prediction": None,
        "figures": {"F3": results["figures"]["F3"]},
    }
    results["network"]["limit"] = None
    text = report.page(results)
    check(text)
    assert 'id="verdicts"' not in text and 'id="prediction"' not in text and '<figure id="F3">' in text


def test_a_failed_experiment_is_said_at_the_top(few):
    few["experiments"][0]["error"] = "ValueError: <it> broke"
    few["complete"] = False
    assert "<li>Kernels at initialisation: ValueError: &lt;it&gt; broke</li>" in report.page(few)


def test_claims_whose_figure_was_not_made(few):
    del few["figures"]["F3"]
    check(report.page(few))


def test_the_same_results_give_the_same_page(few):
    assert report.page(few) == report.page(few)


def test_write_report(results, written):
    page, told = written
    files = {p.name for p in (page.parent / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in results["figures"] for kind in ("svg", "pdf")}
    assert told == [(name, i, len(results["figures"])) for i, name in enumerate(results["figures"])]
    assert [p.name for p in page.parent.iterdir() if p.is_file()] == ["index.html"]


def test_save_figures(few, tmp_path):
    names = [p.name for p in report.save_figures(few, tmp_path / "new")]
    assert names == ["F3.svg", "F3.pdf", "F5.svg", "F5.pdf"] == [n for n in names if (tmp_path / "new" / n).exists()]


def test_read_results(results, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert report.read_results(tmp_path) == results
    assert report.read_results(tmp_path / "results.json") == results


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not JSON"),
        ("[1]", "not a results document"),
        ('{"schema": 99}', "schema 99"),
        ('{"schema": 1, "settings": {}}', "lacks data"),
    ],
)
def test_what_is_not_a_results_document_is_refused(tmp_path, text, message):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(report.ResultsError, match=message):
        report.read_results(tmp_path)


def test_missing_results_are_refused(tmp_path):
    with pytest.raises(report.ResultsError, match="no such file"):
        report.read_results(tmp_path / "nowhere")


def test_the_styles_of_the_figures_follow_the_scheme(written):
    text = written[0].read_text(encoding="utf-8")
    used = set(re.findall(r"var\((--f-\w+),", text))
    declared = re.findall(r"(--f-\w+):#", text)
    assert used - {"--f-font"} <= set(declared)
    assert all(declared.count(name) == 2 for name in used - {"--f-font"})
