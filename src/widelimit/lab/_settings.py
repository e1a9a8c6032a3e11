"""Settings of a lab run: what a user may choose, checked before any work starts."""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from widelimit.lab._activations import ACTIVATIONS, usual_W_std
from widelimit.lab._errors import SettingsError

EFFORTS = ("quick", "default", "full")


@dataclasses.dataclass(frozen=True)
class Effort:
    """Sizes of the experiments at one level of effort."""

    widths: tuple[int, ...]
    seeds: int  # at the widest network; narrower ones get more
    seeds_most: int  # upper bound of the seeds per width
    steps: int  # of gradient descent in the drift experiments
    init_seeds: int
    draws: int  # random networks for the kurtosis of claim 1
    ensemble: int  # trained networks of claim 5c
    narrow: tuple[int, ...]  # widths at which its bias can be seen
    sizes: tuple[int, ...]  # training-set sizes of the prediction job
    prediction_widths: tuple[int, ...]
    prediction_steps: int
    prediction_networks: int
    etas: tuple[float, ...]  # learning rate x lambda_max of the catapult figure


EFFORT: dict[str, Effort] = {
    "quick": Effort(
        (64, 128, 256, 512, 1024), 5, 32, 80, 16, 400_000, 100, (32, 64, 128),
        (50, 200), (64, 256), 200, 2, (0.5, 1.8, 2.5, 3.5, 8.0, 16.0),
    ),
    "default": Effort(
        (64, 128, 256, 512, 1024), 16, 96, 300, 32, 400_000, 200, (16, 32, 64, 128),
        (50, 200, 1000), (64, 256, 512), 300, 3, (0.5, 1.5, 1.8, 2.5, 3.5, 5.0, 8.0, 16.0),
    ),
    "full": Effort(
        (64, 128, 256, 512, 1024, 2048), 16, 100, 1000, 64, 4_000_000, 1000, (16, 32, 64, 128),
        (50, 200, 500, 1000), (64, 256, 1024), 4000, 6,
        (0.25, 0.5, 1.0, 1.5, 1.8, 2.2, 2.5, 3.0, 3.5, 5.0, 6.5, 8.0, 12.0, 16.0),
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a lab run is asked to do.

    data: "digits", a directory of MNIST idx files, or a path of a .npz or .csv file; target: the column (csv)
    or array (npz) to predict.  depth: number of hidden layers.  W_std None: the activation's usual value.
    widths: increasing; None: by effort.  seeds: networks at the widest width (narrower ones get more, at
    equal cost). claims: ids such as ("2", "5b", "A"); None: all.  Raises SettingsError.
    """

    data: str = "digits"
    target: str | None = None
    depth: int = 2
    activation: str = "erf"
    W_std: float | None = None
    b_std: float = 0.0
    widths: tuple[int, ...] | None = None
    seeds: int | None = None
    claims: tuple[str, ...] | None = None
    effort: str = "default"
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.data, str) or not self.data:
            raise SettingsError("data must be 'digits' or a path of a directory, a .npz or a .csv file.")
        if self.effort not in EFFORTS:
            raise SettingsError(f"effort must be one of {', '.join(EFFORTS)}, not {self.effort!r}.")
        if self.activation not in ACTIVATIONS:
            raise SettingsError(f"unknown activation {self.activation!r}; the lab knows {', '.join(ACTIVATIONS)}.")
        _check_integer("depth", self.depth, 1, 20, "hidden layers")
        _check_integer("seed", self.seed, 0, 2**31 - 1, "a random seed")
        if self.seeds is not None:
            _check_integer("seeds", self.seeds, 2, 10_000, "networks per width, for a standard error")
        if self.W_std is not None:
            _check_number("W_std", self.W_std, above_zero=True)
        _check_number("b_std", self.b_std, above_zero=False)
        if self.widths is not None:
            object.__setattr__(self, "widths", _checked_widths(self.widths))
        if self.claims is not None:
            object.__setattr__(self, "claims", _checked_claims(self.claims))

    def resolved(self) -> Settings:
        """The same settings with every None filled in that has a default (target and claims may stay
        None).
        """
        sizes = EFFORT[self.effort]
        return dataclasses.replace(
            self,
            W_std=usual_W_std(self.activation) if self.W_std is None else float(self.W_std),
            b_std=float(self.b_std),
            widths=sizes.widths if self.widths is None else self.widths,
            seeds=sizes.seeds if self.seeds is None else self.seeds,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain dict, for JSON."""
        out = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in out.items()}

    @property
    def sizes(self) -> Effort:
        """Sizes that go with the effort."""
        return EFFORT[self.effort]

    def seeds_at(self, width: int) -> int:
        """Networks at one width: ``width x seeds`` about constant, within the effort's bound."""
        resolved = self.resolved()
        assert resolved.widths is not None
        assert resolved.seeds is not None
        wanted = resolved.seeds * resolved.widths[-1] / width
        return max(resolved.seeds, min(self.sizes.seeds_most, round(wanted)))


def _check_integer(name: str, value: Any, low: int, high: int, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= operator.index(value) <= high:
        raise SettingsError(f"{name} ({what}) must be an integer from {low} to {high}, not {value!r}.")


def _check_number(name: str, value: Any, *, above_zero: bool) -> None:
    good = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(float(value))
    if not good or float(value) < 0 or (above_zero and float(value) == 0):
        kind = "positive" if above_zero else "non-negative"
        raise SettingsError(f"{name} must be a finite {kind} number, not {value!r}.")


def _checked_widths(widths: Any) -> tuple[int, ...]:
    if isinstance(widths, str) or not isinstance(widths, Iterable):
        raise SettingsError(f"widths must be a list of integers such as 64,128,256, not {widths!r}.")
    values = tuple(widths)
    for w in values:
        if isinstance(w, bool) or not isinstance(w, Integral):
            raise SettingsError(f"widths must be integers, and {w!r} is not one; try 64,128,256.")
        if not 4 <= operator.index(w) <= 65536:
            raise SettingsError(f"widths must lie between 4 and 65536; {w} does not.")
    if len(values) < 3:
        raise SettingsError(f"at least 3 widths are needed to fit an exponent, and {len(values)} given.")
    if any(a >= b for a, b in itertools.pairwise(values)):
        raise SettingsError(f"widths must increase, and {', '.join(map(str, values))} do not.")
    return tuple(int(w) for w in values)


def _checked_claims(claims: Any) -> tuple[str, ...]:
    from widelimit.lab._claims import CLAIMS

    known = [c.id for c in CLAIMS]
    if isinstance(claims, str):
        claims = claims.replace(",", " ").split()
    by_name = {k.lower(): k for k in known}
    out = []
    for c in claims:
        if str(c).lower() not in by_name:
            raise SettingsError(f"unknown claim {c!r}; there are {', '.join(known)}.")
        out.append(by_name[str(c).lower()])
    if not out:
        raise SettingsError(f"claims is empty; there are {', '.join(known)}.")
    return tuple(k for k in known if k in out)
