"""Hidden features of a finite network: what its layers are given, read from the program like its parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from widelimit.empirical._parameters import names_of
from widelimit.empirical._uses import Layer, View, outputs

__all__ = ["layer_inputs"]


def layer_inputs(f: Callable, params: Any) -> Callable[[Any, Any], dict[str, Any]]:
    """The features that each layer of a network is given, by the path of the layer's weights.

    Returns ``g(params, x)`` of one example: a dict from paths such as "[0]['W']", in the order of the program, to
    arrays (groups, positions, inputs): for a dense layer its input, for a convolution the patches that its filter
    sees.  Of a layer applied several times the features of all its uses, raveled; layers in loops and lookups of rows
    are not there.
    """
    names, structure = names_of(params), jax.tree.structure(params)

    def g(params, x):
        leaves = jax.tree.leaves(params)
        given, form = jax.tree.flatten(x)
        closed = jax.make_jaxpr(
            lambda leaves, x: f(jax.tree.unflatten(structure, leaves), jax.tree.unflatten(form, x))
        )(leaves, given)
        found: dict[str, list] = {}

        def use(view, what):
            if not isinstance(what, Layer):
                return getattr(what, "output", None)
            if what.layout.kind != "rows":
                found.setdefault(names[view.leaf], []).append(what.h)
            return what.output

        outputs(closed, [*(View(i, a) for i, a in enumerate(leaves)), *given], use)
        return {name: h[0] if len(h) == 1 else jnp.concatenate([a.ravel() for a in h]) for name, h in found.items()}

    return g
