"""Modules made with bad hyperparameters: the error names the layer and the argument."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import widelimit as wl
from widelimit import nn

NAN = float("nan")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: nn.Dense(0), "Dense: width must be an integer >= 1"),
        (lambda: nn.Dense(1.5), "Dense: width must be an integer >= 1"),  # type: ignore[arg-type]
        (lambda: nn.Dense(8, NAN), "Dense: W_std must be a finite number >= 0"),
        (lambda: nn.Dense(8, np.float32(-1)), "Dense: W_std must be a finite number >= 0"),
        (lambda: nn.Dense(8, b_std=-0.1), "Dense: b_std must"), (lambda: nn.Dense(8, W_lr=-1), "Dense: W_lr must"),
        (lambda: nn.Dense(8, b_lr=NAN), "Dense: b_lr must"),
        (lambda: nn.Dense(8, parameterization="mup"), 'Dense: parameterization must be "ntk" or "standard"'),
        (lambda: nn.LayerNorm(-1.0), "LayerNorm: epsilon must"), (lambda: nn.LeakyRelu(NAN), "LeakyRelu: slope must"),
        (lambda: nn.Monomial(-1), "Monomial: degree must be an integer >= 0"),
        (lambda: nn.Monomial(1.5), "Monomial: degree must"), (lambda: nn.Hermite(-1), "Hermite: degree must"),
        (lambda: nn.RectifiedMonomial(-1), "RectifiedMonomial: degree must"),
        (lambda: nn.Polynomial((1.0, NAN)), "Polynomial: coefficients must"),
        (lambda: nn.Dropout(0.0), r"Dropout: keep must lie in \(0, 1\]"), (lambda: nn.Dropout(1.1), "Dropout: keep"),
        (lambda: nn.Conv(0, (3, 3)), "Conv: width must"), (lambda: nn.Conv(4, (3, 0)), "Conv: filter_shape must"),
        (lambda: nn.Conv(4, (3, 3), (1,)), "Conv: strides must be 2 integers >= 1, one for each axis"),
        (lambda: nn.Conv(4, (3, 3), dilation=0), "Conv: dilation must"),
        (lambda: nn.AvgPool(()), "AvgPool: window must"),
        (lambda: nn.SumPool((2, 2), (1, 2, 3)), "SumPool: strides must"),
        (lambda: nn.Sequential(), "Sequential: give at least one module"), (lambda: nn.Sum(), "Sum: give at least one"),
    ],
)  # fmt: skip
def test_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: nn.Dense(True), "Dense: width must be an integer"), (lambda: nn.Dense("8"), "Dense: width must"),
        (lambda: nn.Dense(8, "a"), "Dense: W_std must be a finite number"), (lambda: nn.Dense(8, None), "W_std must"),
        (lambda: nn.Dense(8, np.ones(3)), "Dense: W_std must"), (lambda: nn.LayerNorm("a"), "LayerNorm: epsilon must"),
        (lambda: nn.Conv(4, 2.5), "Conv: filter_shape must be an integer or a tuple"),
        (lambda: nn.Conv(4, True), "Conv: filter_shape must"),
        (lambda: nn.ConvLocal(4, ("a",)), "ConvLocal: filter_shape"),
        (lambda: nn.Concat(nn.Relu(), axis=1.0), "Concat: axis must be an integer"),
        (lambda: nn.LayerNorm(axis="last"), "LayerNorm: axis must"), (lambda: nn.Crop((3,)), "Crop: slices must"),
        (lambda: nn.Polynomial(()), "coefficients must be a tuple of at least one"),
        (lambda: nn.Polynomial("ab"), "Polynomial: coefficients must be a tuple"),
        (lambda: nn.Dropout("a"), "Dropout: keep must"),
        (lambda: nn.Elementwise(3), "Elementwise: fn must be a function"),
        (lambda: nn.Sequential(nn.Relu), "argument 0 is .* add parentheses"),
        (lambda: nn.Residual(nn.Relu(), jnp.tanh), "argument 1 is .*, not a module"),
        (lambda: nn.Sequential([nn.Dense(3)]), "Sequential: argument 0 is"),
        (lambda: wl.ntk(nn.Dense), "expected a network with init"), (lambda: wl.nngp(jnp.tanh), "wl.limit"),
    ],
)  # fmt: skip
def test_types(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize(
    "net, message",
    [
        (nn.Sequential(nn.Dense(8), nn.Residual(nn.Relu(), nn.Dense(9)), nn.Dense(1)), "incompatible shapes"),
        (nn.Sequential(nn.Residual(nn.Dense(4)), nn.Dense(1)), "put a Dense layer before it"),
        (nn.Relu(), "does not depend on any Gaussian parameter"),
    ],
)
def test_networks_without_a_limit(net, message):
    with pytest.raises(wl.UnknownLimitError, match=message):
        wl.ntk(net)(np.ones(4), np.ones(4))


def test_traced_and_numpy_numbers_are_accepted():
    """W_std may be differentiated, a degree may be a NumPy integer."""

    def k(W_std):
        net = nn.Sequential(nn.Dense(np.int64(8), W_std), nn.Monomial(np.int64(2)), nn.Dense(1, np.float32(1)))
        return wl.nngp(net)(jnp.ones(4), jnp.ones(4))

    assert float(jax.grad(k)(1.5)) == pytest.approx(4 * float(k(1.5)) / 1.5, rel=1e-5)


@pytest.mark.parametrize(
    "net, shape, message",
    [
        (nn.Conv(4, (3, 3)), (8, 8), r"Conv: a filter of shape \(3, 3\) needs an input of 3 axes"),
        (nn.Conv(4, 3, padding="FULL"), (8, 2), 'padding must be "SAME", "VALID", "CIRCULAR" or a pair'),
        (nn.Conv(4, 3, padding="VALID"), (2, 2), r"Conv: windows over \(3,\) positions do not fit into \(2,\)"),
        (nn.AvgPool(3), (2, 2), r"AvgPool: windows over \(3,\) positions do not fit into \(2,\)"),
        (nn.ConvTranspose(4, 3, padding=((1, 1),)), (8, 2), "ConvTranspose: padding must"),
        (nn.AvgPool((2, 2)), (8, 2), r"AvgPool: a window of shape \(2, 2\) needs an input of 3 axes"),
        (nn.Crop(((1, 2), (0, 1))), (8, 2), "whose last axis is kept"),
        (nn.ImageResize((3,)), (8, 8, 2), r"ImageResize: shape \(3,\) does not fit"),
    ],
)
def test_inputs_that_do_not_fit(net, shape, message):
    """Named where the network is made and where its kernel is asked for."""
    whole = nn.Sequential(net, nn.Flatten(), nn.Dense(1))
    with pytest.raises(ValueError, match=message):
        whole.init(jax.random.key(0), shape)
    with pytest.raises((ValueError, wl.UnknownLimitError), match=message):
        wl.ntk(whole)(np.ones(shape), np.ones(shape))
