"""`Limit.plan`: equal positions for flattened networks, pairs for pooled ones; figures that follow from the shapes."""

from __future__ import annotations

import numpy as np
import pytest

import widelimit as wl
from widelimit import nn


def convolutional(end):
    return wl.limit(nn.Sequential(nn.Conv(8, (3, 3)), nn.Relu(), nn.Conv(8, (3, 3)), nn.Relu(), end, nn.Dense(1)))


def test_flattened_networks_ask_for_equal_positions():
    plan = convolutional(nn.Flatten()).plan(shape=(6, 5, 3))
    assert not plan.pairs and max(plan.equal) == 30
    assert "at equal positions" in str(plan) and "pairs" not in str(plan)


def test_pooled_networks_ask_for_pairs():
    flat, pooled = (convolutional(end).plan((6, 5, 3)) for end in (nn.Flatten(), nn.GlobalAvgPool()))
    assert max(pooled.pairs) == 30**2
    assert pooled.operations > 5 * flat.operations and pooled.bytes > 5 * flat.bytes


def test_operations_of_one_dense_layer():
    """Two inner products of the inputs, for K and for T (XLA makes one of them): four operations an entry more."""
    counts = [wl.limit(nn.Sequential(nn.Dense(4))).plan(x=np.ones(d)).operations for d in (10, 110)]
    assert counts[1] - counts[0] == 400


def test_nothing_to_plan_for():
    with pytest.raises(ValueError, match="plan: give an example"):
        convolutional(nn.Flatten()).plan()
