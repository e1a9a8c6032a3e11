"""Every fully connected architecture of the reference list, to 1e-10 in float64."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from reference_networks import network

import widelimit as wl

_FOLDER = pathlib.Path(__file__).resolve().parents[3] / "shared" / "reference"
_FAMILIES = ("fc_", "hard_", "prod_fc", "concat_channel_fc", "layer_norm_fc", "dropout_fc", "resnet_fc")
# no network has it: a function of the kernel, not of a preactivation
_NO_NETWORK = {"fc_exp_normalized"}


def _cases():
    if not _FOLDER.is_dir():
        return []
    listed = json.loads((_FOLDER / "architectures.json").read_text())["architectures"]
    return [e for e in listed if e["name"].startswith(_FAMILIES) and e["name"] not in _NO_NETWORK]


def _tolerance(name: str) -> float:
    # Two known gaps: a sign network at an input angle of 1e-17, below the rounding of normalised inputs, and a
    # kernel value of 2e-4 that is the difference of terms of order 10.
    return {"hard_sign_2_nobias": 1e-8, "fc_rectified_monomial_3": 1e-9}.get(name, 1e-10)


# the longest; others of their families are checked each time
_SLOW = ("fc_relu_50", "hard_relu_2", "fc_gabor_1", "hard_abs_2_nobias", "fc_num_softplus_deg25", "hard_sign_2")


def _parameters():
    # 50 layers take longer than all the others together
    return [pytest.param(e, id=e["name"], marks=[pytest.mark.slow] if e["name"] in _SLOW else []) for e in _cases()]


@pytest.mark.parametrize("case", _parameters())
def test_architecture(case, shared):
    name = case["name"]
    kernels, inputs = (
        np.load(shared / "reference" / "kernels.npz"),
        np.load(shared / "reference" / "inputs.npz"),
    )
    k = wl.kernels(network(case["spec"]))
    x1, x2 = inputs[case["x1"]], inputs[case["x2"]]
    for suffix, G in (("11", wl.gram(k, x1)), ("12", wl.gram(k, x1, x2))):
        for kind in ("nngp", "ntk"):
            exact = f"{name}/exact_{kind}_{suffix}" in kernels
            wanted = kernels[f"{name}/{'exact_' if exact else ''}{kind}_{suffix}"]
            if name.startswith("fc_num_") and not exact:
                continue  # Gauss-Hermite values, themselves wrong by 1e-5 to 1
            known = np.isfinite(wanted)
            error = np.abs(getattr(G, kind) - wanted)[known] / np.maximum(np.abs(wanted[known]), 1e-12)
            assert error.max() < _tolerance(name), f"{kind}_{suffix}"
