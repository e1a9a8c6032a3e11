"""``widelimit lazy MODEL.py:net``: the page, the JSON, and what is refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from widelimit.cli import ExitCode, main

MODEL = """
import jax.numpy as jnp
import numpy as np
from widelimit import nn

net = nn.Sequential(nn.Dense(8), nn.Tanh(), nn.Dense(10))
start = {"W": np.ones((64, 10)) / 64}
pair = (lambda params, x: x @ params["W"], start)
image = (lambda params, x: jnp.einsum("ijc,ijco->o", x, params["W"]), {"W": np.ones((8, 8, 1, 10)) / 64})


def build(width, key):
    return nn.Sequential(nn.Dense(width), nn.Tanh(), nn.Dense(10))


number = 3
"""
SMALL = ["--train", "24", "--test", "24", "--steps", "5"]


@pytest.fixture
def model(tmp_path):
    file = tmp_path / "model.py"
    file.write_text(MODEL)
    return str(file)


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run the command line in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main([str(a) for a in arguments])
        return (exit_.value.code, *capsys.readouterr())

    return call


def test_the_page_and_the_text_say_the_same(run, model, tmp_path):
    code, out, err = run("lazy", f"{model}:net", *SMALL, "--alpha-sweep", "1,4,16", "--seeds", "1")
    assert code == ExitCode.OK, err
    kept = json.loads((tmp_path / "widelimit-lazy" / "laziness.json").read_text())
    page = (tmp_path / "widelimit-lazy" / "index.html").read_text()
    assert kept["verdict"].upper() in out.splitlines()[0] and "model.py:net" in out
    assert "kernel drift" in out and "Over alpha" in out and "Page: widelimit-lazy" in out
    assert page.count("<figure id=") == 5 and "Over output scales" in page
    assert not re.search(r'(src|href)="https?:', page) and "<script" not in page, "nothing is fetched or run"
    assert len(kept["result"]["times"]) == 4 and kept["sweeps"][0]["over"] == "alpha"
    assert (tmp_path / "widelimit-lazy" / "figures" / "drift.pdf").exists()
    assert "training" in err, "progress goes to standard error"


def test_json_alone(run, model):
    code, out, _ = run("lazy", f"{model}:build", *SMALL, "--width", "8", "--json")
    found = json.loads(out)
    assert code == ExitCode.OK and found["result"]["settings"]["loss"] == "sum"
    assert found["result"]["settings"]["shapes"]["0.W"] == [64, 8]


def test_a_pair_checkpoints_and_a_csv(run, model, tmp_path):
    for i in (1, 2):
        np.savez(tmp_path / f"c{i}.npz", W=np.ones((64, 10)) / 64 + 0.01 * i)
    code, out, err = run(
        "lazy", f"{model}:pair", "--train", "24", "--test", "0", "--checkpoints", tmp_path / "c1.npz",
        tmp_path / "c2.npz", "--times", "10,20",
    )  # fmt: skip
    assert code == ExitCode.OK, err
    assert "2 checkpoints, times 10 to 20" in out and "linear in its parameters" in out
    code, _, err = run("lazy", f"{model}:image", *SMALL, "--shape", "8,8,1")
    assert code == ExitCode.OK, err
    rows = np.random.default_rng(0).normal(size=(40, 4))
    (tmp_path / "t.csv").write_text("a,b,c,y\n" + "\n".join(",".join(f"{v:.4f}" for v in r) for r in rows))
    text = "import numpy as np\nnet = (lambda p, x: x @ p, np.ones((4, 1)))\n"  # three columns and one of ones
    (tmp_path / "table.py").write_text(text)
    code, out, err = run("lazy", "table.py:net", "--data", "t.csv", "--target", "y", *SMALL[:2], "--test", "10")
    assert code == ExitCode.OK, err
    assert "24 examples to train, 10 to test" in out


BAD = [
    (["nowhere.py:net"], "no such file"),
    (["{model}"], "FILE.py:NAME"),
    (["{model}:nothing"], "has no 'nothing'; it has"),
    (["{model}:number"], "must be a model"),
    (["{model}:net", "--loss", "hinge"], "--loss"),
    (["{model}:net", "--steps", "0"], "--steps"),
    (["{model}:net", "--lr", "-1"], "--lr"),
    (["{model}:net", "--train", "5000"], "--train"),
    (["{model}:net", "--shape", "9,9"], "--shape"),
    (["{model}:net", "--width-sweep", "8,16"], "three different"),
    (["{model}:net", "--width-sweep", "8,16,x"], "'x' is not a positive integer"),
    (["{model}:net", "--width-sweep", "8,16,32"], "must be a function (width, key)"),
    (["{model}:net", "--alpha-sweep", "1,2,-3"], "not a positive number"),
    (["{model}:net", "--checkpoints", "gone.npz"], "no such file"),
    (["{model}:net", "--times", "1"], "--times are those of --checkpoints"),
    (["{model}:net", "--data", "gone.csv", "--target", "y"], "gone.csv"),
    (["{model}:net", "--loss", "logistic"], "two classes"),
    (["{model}:net", "--out", "{model}"], "is a file"),
    (["{model}:net", "--out", "."], "holds other files"),
    (["broken.py:net"], "line 2 failed: ZeroDivisionError"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[f"{i}-{w}" for i, (_, w) in enumerate(BAD)])
def test_bad_input_is_one_line_and_exit_code_2(run, model, tmp_path, arguments, words):
    (tmp_path / "broken.py").write_text("x = 1\nnet = x / 0\n")
    arguments = [a.format(model=model) for a in arguments]
    code, out, err = run("lazy", *arguments, *([] if "--steps" in arguments else ["--steps", "1000000"]))
    assert code == ExitCode.BAD_INPUT and out == ""
    assert words in err.splitlines()[-1] and "Traceback" not in err and "training\n" not in err
