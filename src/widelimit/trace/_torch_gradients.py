"""Whether a PyTorch program that was exported has the gradients of its module."""

from __future__ import annotations

from typing import Any

from widelimit.fields import UnknownLimitError

__all__ = ["check_gradients"]


def check_gradients(module: Any, program: Any, example: Any) -> None:
    """Raise UnknownLimitError where the program's derivatives at a random input are not the module's own.

    `torch.export` keeps what is computed, and neither a backward of one's own (`torch.autograd.Function`), hooks on
    gradients, nor `torch.inference_mode`.  Both are run by PyTorch, forwards and backwards.
    """
    import torch

    if program.graph_signature.buffers_to_mutate or len(program.graph_signature.user_outputs) != 1:
        return  # refused for that
    if example.is_floating_point():
        generator = torch.Generator().manual_seed(0)
        example = torch.randn(example.shape, generator=generator, dtype=torch.float32).to(example)
    trained = {name: p for name, p in module.named_parameters(remove_duplicate=False) if p.requires_grad}
    copies = {id(p): p.detach().clone().requires_grad_() for p in trained.values()}
    buffers = {name: b.detach().clone() for name, b in module.named_buffers()}
    whole = program.module()
    held = dict(whole.named_parameters(remove_duplicate=False))
    given = {name: copies[id(p)] for name, p in trained.items() if name in held}
    try:
        own, again = (_gradients(module, buffers, example, list(trained.values()), seed) for seed in (0, 1))
    except Exception:  # PyTorch itself has no gradient there, for one of many reasons
        return
    if any(not torch.equal(a, b) for a, b in zip(own, again, strict=True)):
        return  # random: refused by its operations
    theirs = _gradients(whole, given, example, [copies[id(p)] for p in trained.values()], 0, tie_weights=False)
    size = max((float(g.abs().max()) for g in own if g.numel()), default=0.0)
    for name, a, b in zip(trained, own, theirs, strict=True):
        if not a.numel():
            continue
        rounding = torch.finfo(a.dtype).eps ** 0.5
        if float((a - b).abs().max()) > rounding * (float(a.abs().max()) + size / 100):
            raise UnknownLimitError(
                f"the module has another gradient by `{name}` than what torch.export reads of it: a "
                "torch.autograd.Function with a backward of its own, a hook that changes gradients, or "
                "torch.inference_mode. Remedy: write it with .detach(), such as x + (f(x) - x).detach() for a "
                "straight-through estimator."
            )


def _gradients(module, tensors, example, params, seed: int, **how) -> list:
    """Of a random combination of the outputs, by the parameters."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        out = torch.func.functional_call(module, tensors, (example,), **how)
        if not out.requires_grad:
            return [torch.zeros_like(p) for p in params]
        torch.manual_seed(2)
        found = torch.autograd.grad(out, params, torch.randn_like(out), allow_unused=True)
    zero = [torch.zeros_like(p) if g is None else g.detach() for g, p in zip(found, params, strict=True)]
    return [torch.nan_to_num(g) for g in zero]
