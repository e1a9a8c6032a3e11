"""Derivatives of a PyTorch module that are not those of the operations in its forward: refused.

An exported program holds what forward does.  What only backward knows of is lost: functions with a backward of their
own, hooks on gradients, blocks without gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from widelimit.fields import UnknownLimitError

__all__ = ["forward_watched", "without_no_grad"]

_LOST = "which the exported program does not hold."
_DETACH = "Remedy: use .detach() on what is not to be differentiated."
_CALLS = {
    "register_hook": f"a hook on the gradient of a tensor (register_hook), {_LOST} Remedy: write it without.",
    "detach_": f"detach_(), {_LOST} {_DETACH}",
    "inference_mode": f"a torch.inference_mode() block, {_LOST} {_DETACH}",
}


@contextlib.contextmanager
def forward_watched(module) -> Iterator[None]:
    """While the module is exported in this context: raises UnknownLimitError where derivatives would be lost."""
    import torch
    from torch.overrides import TorchFunctionMode

    for name, parameter in module.named_parameters():
        if getattr(parameter, "_backward_hooks", None):
            raise UnknownLimitError(
                f"the parameter {name} has a hook on its gradient (register_hook), {_LOST} Remedy: remove the hook."
            )
    called: set[str] = set()
    functions: set[str] = set()

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            called.add(getattr(func, "__name__", ""))
            if torch.is_inference_mode_enabled():
                called.add("inference_mode")
            return func(*args, **(kwargs or {}))

    def read(module, inputs, output):
        if isinstance(output, torch.Tensor):
            functions.update(_own_backwards(output))

    hook = module.register_forward_hook(read)
    try:
        with Watch():
            yield
    finally:
        hook.remove()
    for call, told in _CALLS.items():
        if call in called:
            raise UnknownLimitError(f"the module's forward has {told}")
    if "BackwardHookFunction" in functions:
        raise UnknownLimitError(
            f"the module has hooks on gradients (register_full_backward_hook), {_LOST} Remedy: remove the hooks."
        )
    if functions:
        raise UnknownLimitError(
            f"the module's forward has functions with a backward of their own ({', '.join(sorted(functions))}), "
            f"{_LOST} Remedy: write them with tensors; a straight-through estimator of f is x + (f(x) - x).detach()."
        )


def _own_backwards(output) -> set[str]:
    """Names of the `torch.autograd.Function`s that the output was made with."""
    from torch.autograd.function import BackwardCFunction

    names, seen, left = set(), set(), [output.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, BackwardCFunction):
            names.add(type(node).__name__.removesuffix("Backward"))
        left += [following for following, _ in node.next_functions]
    return names


def without_no_grad(program) -> None:
    """Raises UnknownLimitError where an exported program has a block without gradients."""
    for node in program.graph.nodes:
        if "set_grad_enabled" in str(node.target) and node.args and node.args[0] is False:
            raise UnknownLimitError(
                "the module's forward has a torch.no_grad() block, whose effect on the NTK cannot be read from the "
                f"exported program. {_DETACH}"
            )
