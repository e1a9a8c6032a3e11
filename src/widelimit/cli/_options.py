"""The options that say what to run, shared by the commands that compute."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from widelimit.cli._exit import InputError

if TYPE_CHECKING:
    from widelimit.lab import Settings

__all__ = ["LabOptions"]


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LabOptions:
    """What to run.

    Attributes
    ----------
    data
        digits, a directory of MNIST-style idx files (MNIST, Fashion-MNIST), a .npz file (X, y) or a .csv file.
    target
        The column (.csv) or the array (.npz) to predict.
    depth
        Number of hidden layers.
    activation
        erf, relu, gelu, tanh or sin.
    W_std
        Standard deviation of the weights [default: √2 for relu, 1.5 for the others].
    b_std
        Standard deviation of the biases.
    widths
        Widths of the finite networks, increasing, such as 64,128,256 [default: by effort].
    seeds
        Networks at the widest width; narrower ones get more [default: by effort].
    seed
        The seed all random numbers come from.
    quick
        About 90 seconds on two cores; wider error bars.
    full
        Wider networks and more of them: an hour or so.
    """

    data: str = "digits"
    target: str | None = None
    depth: int = 2
    activation: str = "erf"
    W_std: Annotated[float | None, Parameter(name=["--W-std", "--w-std"])] = None
    b_std: Annotated[float, Parameter(name="--b-std")] = 0.0
    widths: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None
    seeds: int | None = None
    seed: int = 0
    quick: Annotated[bool, Parameter(negative="", show_default=False)] = False
    full: Annotated[bool, Parameter(negative="", show_default=False)] = False

    def settings(self, claims: list[str] | None = None) -> Settings:
        """The lab's settings; raises InputError or the lab's SettingsError."""
        if self.quick and self.full:
            raise InputError("--quick and --full exclude each other; give one of them or neither.")
        widths = None if self.widths is None else _integers(self.widths)
        from widelimit.lab import Settings

        return Settings(
            data=self.data,
            target=self.target,
            depth=self.depth,
            activation=self.activation,
            W_std=self.W_std,
            b_std=self.b_std,
            widths=widths,
            seeds=self.seeds,
            claims=None if claims is None else tuple(separate(claims)),
            effort="quick" if self.quick else "full" if self.full else "default",
            seed=self.seed,
        )


def separate(words: list[str]) -> list[str]:
    """The items of ``a,b c`` however they were separated."""
    return [item for word in words for item in re.split(r"[,\s]+", word) if item]


def _integers(words: list[str]) -> tuple[int, ...]:
    items = separate(words)
    for item in items:
        if not re.fullmatch(r"[+-]?\d+", item):
            raise InputError(f"--widths: {item!r} is not an integer; write for example --widths 64,128,256.")
    return tuple(int(item) for item in items)
