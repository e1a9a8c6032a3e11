"""Every fully connected architecture of the reference list, to 1e-10 in float64."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from reference_networks import case_inputs, case_network, network

import oracle
import widelimit as wl

_FOLDER = pathlib.Path(__file__).resolve().parents[3] / "shared" / "reference"
_WITH_POSITIONS = (
    "conv", "avg_pool", "sum_pool", "myrtle", "wide_resnet", "densenet", "resize", "index", "dot_general", "prod_conv",
    "concat_spatial", "layer_norm_conv", "dropout_conv", "resnet_layer_norm", "attention", "graph_",
    "mask_",
)  # fmt: skip
_FAMILIES = ("fc_", "hard_", "prod_fc", "concat_channel", "layer_norm_fc", "dropout_fc", "resnet_fc", *_WITH_POSITIONS)
# no network has the first: a function of the kernel, not of a preactivation.  The others are kernels of Neural Tangents
# from which the networks themselves differ by 2 % (test_convolutions.py): its resizing of kernels is not exact
_LEFT_OUT = {"fc_exp_normalized", "resize_up_linear_gap", "resize_down_linear_gap"}


def _cases():
    if not _FOLDER.is_dir():
        return []
    listed = json.loads((_FOLDER / "architectures.json").read_text())["architectures"]
    return [e for e in listed if e["name"].startswith(_FAMILIES) and e["name"] not in _LEFT_OUT]


def _tolerance(name: str) -> float:
    # An NTK of 2e-4 that is the difference of terms of order 10: the list's value, in float64, is off by 2.9e-10, and
    # ours right to 1e-12 (test_rectified_cubes_against_multiple_precision).
    # Neural Tangents' arc-cosine is right to 4e-9 on the diagonal; with positions there are no exact values.
    known = {"fc_rectified_monomial_3": 1e-9}
    return known.get(name, 1e-8 if name.startswith(_WITH_POSITIONS) else 1e-10)


# the longest; others of their families are checked each time
_SLOW = ("fc_relu_50", "hard_relu_2", "fc_gabor_1", "hard_abs_2_nobias", "fc_num_softplus_deg25", "hard_sign_2")


def _parameters():
    # 50 layers take longer than all the others together
    return [pytest.param(e, id=e["name"], marks=[pytest.mark.slow] if _is_slow(e["name"]) else []) for e in _cases()]


_QUICK = (
    "conv_same_s2_flat", "conv_nonsquare_gap", "conv1d_gap", "conv_local_gap", "conv_transpose_valid_flat",
    "avg_pool_same_normalize_edges", "layer_norm_conv_hwc_flat", "dropout_conv_gap", "densenet_gap", "index_crop_gap",
    "dot_general_gap", "conv_spatial_out_1", "attention_softmax_gap", "attention_2d_gap",
    "attention_pos_sum", "attention_pos_concat_val", "graph_gcn_gap", "mask_conv_gap",
)  # fmt: skip


def _is_slow(name: str) -> bool:
    """Of networks with positions one of each kind is checked each time."""
    return name in _SLOW or (name.startswith(_WITH_POSITIONS) and name not in _QUICK)


@pytest.mark.parametrize("case", _parameters())
def test_architecture(case, shared):
    name = case["name"]
    kernels, inputs = (
        np.load(shared / "reference" / "kernels.npz"),
        np.load(shared / "reference" / "inputs.npz"),
    )
    x1, x2 = (case_inputs(case, inputs, i) for i in (0, 1))
    k = wl.kernels(case_network(case))
    if name == "conv_spatial_out_1":  # one channel at each of 2 x 2 positions
        k = wl.kernels(network([{**case["spec"][0], "width": 1}]), output="full")
    for suffix, G in (("11", wl.gram(k, x1)), ("12", wl.gram(k, x1, x2))):
        for kind in ("nngp", "ntk"):
            exact = f"{name}/exact_{kind}_{suffix}" in kernels
            wanted = kernels[f"{name}/{'exact_' if exact else ''}{kind}_{suffix}"]
            if wanted.ndim == 6:  # (n1, n2, W, W', H, H'): after an odd number of convolutions axes are reversed
                wanted = np.transpose(wanted, (0, 1, 4, 2, 5, 3)).reshape(*wanted.shape[:2], 4, 4)
            if name.startswith("fc_num_") and not exact:
                continue  # Gauss-Hermite values, themselves wrong by 1e-5 to 1
            known = np.isfinite(wanted)
            error = np.abs(getattr(G, kind) - wanted)[known] / np.maximum(np.abs(wanted[known]), 1e-12)
            assert error.max() < _tolerance(name), f"{kind}_{suffix}"


def test_rectified_cubes_against_multiple_precision(shared):
    """Where the listed values are not exact."""
    (case,) = (e for e in _cases() if e["name"] == "fc_rectified_monomial_3")
    inputs = np.load(shared / "reference" / "inputs.npz")
    x1, x2 = inputs[case["x1"]], inputs[case["x2"]]
    dense = case["spec"][0]
    G = wl.gram(wl.kernels(network(case["spec"])), x1, x2)
    for i, a in enumerate(x1):
        for j, b in enumerate(x2):
            exact = oracle.fully_connected(
                oracle.rectified_monomial(3), list(map(float, a)), list(map(float, b)), depth=1,
                W_std=dense["W_std"], b_std=dense["b_std"], digits=30,
            )  # fmt: skip
            assert float(G.nngp[i, j]) == pytest.approx(float(exact.nngp), rel=1e-12)
            assert float(G.ntk[i, j]) == pytest.approx(float(exact.ntk), rel=1e-12)
