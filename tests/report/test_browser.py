"""The page in a real browser: it loads from disk, without a network and without a complaint."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--hide-scrollbars",
]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Run the browser with some more flags; skips where there is none."""
    binary = next((b for name in NAMES if (b := shutil.which(name))), None)
    if binary is None:
        pytest.skip("no chromium or chrome on this machine")

    def run(*flags):
        profile = tmp_path_factory.mktemp("profile")
        command = [binary, *FLAGS, f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0", *flags]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)

    return run


def console(text):
    return re.findall(r"CONSOLE[:(].*", text)


def test_the_browser_reports_what_goes_wrong(browser, tmp_path):
    """The check below must be able to fail."""
    page = tmp_path / "bad.html"
    page.write_text("<!DOCTYPE html><script>console.error('oh no')</script>")
    assert any("oh no" in line for line in console(browser("--dump-dom", page.as_uri()).stderr))


def test_the_page_loads_without_console_messages(browser, results, written):
    done = browser("--dump-dom", written[0].as_uri())
    assert console(done.stderr) == []
    assert done.stdout.count("<svg") == 2 * len(results["figures"])
    assert "claims judged hold" in done.stdout


def test_nothing_is_wider_than_the_screen(browser, written, tmp_path):
    """Frames of the widths of telephones and of a screen around the page report how wide its contents are."""
    page = written[0].read_text(encoding="utf-8").replace("default-src 'none'", "default-src 'unsafe-inline'")
    script = "<script>document.title = innerWidth + ' ' + document.documentElement.scrollWidth</script></body>"
    (tmp_path / "inner.html").write_text(page.replace("</body>", script), encoding="utf-8")
    (tmp_path / "outer.html").write_text(
        "<!DOCTYPE html>"
        + "".join(
            f'<iframe src="inner.html" style="width:{width}px;height:900px;border:0" '
            "onload=\"document.body.append(this.contentDocument.title + ';')\"></iframe>"
            for width in (320, 390, 1280)
        )
    )
    done = browser("--allow-file-access-from-files", "--dump-dom", (tmp_path / "outer.html").as_uri())
    found = {int(w): int(inside) for w, inside in re.findall(r"(\d+) (\d+);", done.stdout)}
    assert set(found) == {320, 390, 1280}
    assert all(inside <= width for width, inside in found.items())
