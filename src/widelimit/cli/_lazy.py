"""``widelimit lazy MODEL.py:net``: how lazy a network is, and what would change it."""

from __future__ import annotations

import dataclasses
import json as json_
import pathlib
import re
import sys
from typing import Annotated, Any

from cyclopts import Parameter

from widelimit.cli._exit import ExitCode, InputError
from widelimit.cli._options import separate

_LOSSES = ("sum", "mean", "cross_entropy", "logistic")
_Several = Parameter(consume_multiple=True, negative="")


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LazyOptions:
    """What is trained on what.

    Attributes
    ----------
    data
        digits, a directory of MNIST-style idx files, a .npz file (X, y) or a .csv file.
    target
        The column (.csv) or the array (.npz) to predict.
    shape
        Shape of one example as the network takes it, such as 8,8,1 [default: a row of numbers].
    train
        Examples to train on, drawn at random.
    test
        Examples held out.
    kernel
        At most so many of the training examples for the kernel and the features.
    loss
        sum (½ Σ of squares), mean, cross_entropy or logistic (two classes).
    steps
        Steps of full-batch gradient descent.
    lr
        Learning rate [default: half of the largest that is stable at the start].
    alpha
        Train alpha (f - f_0), with the loss divided by alpha².
    seed
        Of the parameters of a module or builder, and of the choice of examples.
    """

    data: str = "digits"
    target: str | None = None
    shape: Annotated[list[str] | None, _Several] = None
    train: int = 256
    test: int = 256
    kernel: int = 256
    loss: str = "sum"
    steps: int = 1000
    lr: float | None = None
    alpha: float | None = None
    seed: int = 0


_DEFAULTS = LazyOptions()


def lazy(
    model: str,
    /,
    *,
    options: LazyOptions = _DEFAULTS,
    width: int = 256,
    width_sweep: Annotated[list[str] | None, _Several] = None,
    alpha_sweep: Annotated[list[str] | None, _Several] = None,
    seeds: int = 3,
    checkpoints: Annotated[list[str] | None, _Several] = None,
    times: Annotated[list[str] | None, _Several] = None,
    out: pathlib.Path = pathlib.Path("widelimit-lazy"),
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Say how lazy a network is: kernel drift, movement, linearisation, curvature; one page.

    Parameters
    ----------
    model
        FILE.py:NAME of an nn module, a PyTorch, Flax or Equinox model, a pair (f, params), or a function (width, key)
        that makes one.
    width
        Of a builder.
    width_sweep
        Widths for fitted exponents, such as 64,128,256; for a builder.
    alpha_sweep
        Output scales for fitted exponents, such as 0.25,1,4,16.
    seeds
        Networks at each width or scale of a sweep.
    checkpoints
        Files of parameters in training (.npz, .pt), in order: nothing is trained.
    times
        Their steps [default: 1,2,...].
    out
        Directory for index.html, laziness.json and figures/.
    json
        Print the numbers as JSON instead of the page.
    """
    from widelimit.cli._model import check_files, load_model, split_name

    file, attribute = split_name(model)
    widths, alphas = _numbers("--width-sweep", width_sweep, int), _numbers("--alpha-sweep", alpha_sweep, float)
    _check(options, width, seeds, widths, alphas)
    files = check_files(separate(checkpoints or []))
    steps = _numbers("--times", times, int)
    shape = _numbers("--shape", options.shape, int)
    _check_place(out)
    found = load_model(file, attribute)
    from widelimit.diagnostics import is_builder

    if widths and not is_builder(found):
        raise InputError(
            f"--width-sweep: {attribute!r} must be a function (width, key) that makes a model of any width."
        )
    data = _data(options, shape)
    settings = {"loss": options.loss, "steps": options.steps, "learning_rate": options.lr, "examples": options.kernel}
    job = _Job(found, data, settings | {"X_test": data.pop("X_test"), "Y_test": data.pop("Y_test")}, options, width)
    return job.run(_Wanted(widths, alphas, seeds, files, steps, out, json, f"{file.name}:{attribute}"))


@dataclasses.dataclass(frozen=True)
class _Wanted:
    widths: list | None
    alphas: list | None
    seeds: int
    files: list
    times: list | None
    out: pathlib.Path
    json: bool
    name: str


@dataclasses.dataclass
class _Job:
    model: Any
    data: dict[str, Any]
    settings: dict[str, Any]
    options: LazyOptions
    width: int

    def run(self, wanted: _Wanted) -> int:
        """Report, then sweeps; the page is written after each, so that an interrupt leaves what is finished."""
        from widelimit.cli._progress import LazyProgress

        sweeps, made, page = [], None, None
        try:
            with LazyProgress() as progress:
                result = self._report(wanted, progress)
                made, page = self._write(result, sweeps, wanted)
                for over, values in (("widths", wanted.widths), ("alphas", wanted.alphas)):
                    if values:
                        sweeps.append(self._sweep(over, values, wanted.seeds, progress))
                        made, page = self._write(result, sweeps, wanted)
        except KeyboardInterrupt:
            if made is None:
                print("widelimit: interrupted before the report was finished.", file=sys.stderr)
                return ExitCode.INTERRUPTED
            print("widelimit: interrupted in a sweep; the report of the network is kept.", file=sys.stderr)
            self._say(made, page, wanted)
            return ExitCode.INTERRUPTED
        self._say(made, page, wanted)
        return ExitCode.OK

    def _report(self, wanted, progress):
        import jax

        from widelimit.cli._model import read_checkpoint
        from widelimit.diagnostics import built, is_builder, laziness

        key = jax.random.key(self.options.seed)
        given = (
            {"checkpoints": [read_checkpoint(f) for f in wanted.files], "times": wanted.times} if wanted.files else {}
        )
        if wanted.times and not wanted.files:
            raise InputError("--times are those of --checkpoints, which are not given.")
        with _told():
            model = built(self.model, self.width, key) if is_builder(self.model) else self.model
            return laziness(
                model, **self.data, **self.settings, **given, alpha=self.options.alpha, key=key, progress=progress
            )

    def _sweep(self, over, values, seeds, progress):
        import jax

        from widelimit.diagnostics import laziness_sweep

        scale = {} if over == "alphas" else {"alpha": self.options.alpha}
        with _told():
            return laziness_sweep(
                self.model, **self.data, **self.settings, **scale, **{over: values}, seeds=seeds, width=self.width,
                key=jax.random.key(self.options.seed), progress=progress,
            )  # fmt: skip

    def _write(self, result, sweeps, wanted):
        from widelimit import report
        from widelimit.diagnostics import document

        made = document(result, title=f"How lazy is {wanted.name}?", sweeps=sweeps)
        return made, report.write_laziness(made, wanted.out)

    def _say(self, made, page, wanted) -> None:
        from widelimit.diagnostics import text_of

        if wanted.json:
            print(json_.dumps({k: made[k] for k in ("verdict", "sentence", "advice", "notes", "result", "sweeps")}))
        else:
            print(f"{text_of(made)}\n\nPage: {page}")


class _told:
    """Context manager: what the library refuses is bad input, in one line."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, ValueError | TypeError) and not isinstance(error, InputError):
            remedy = " (--shape, such as 8,8,1)" if "one at a time" in str(error) else ""
            raise InputError(f"{error}{remedy}") from error


def _numbers(option: str, words: list[str] | None, kind: type) -> list | None:
    if words is None:
        return None
    items = separate(words)
    pattern = r"\+?\d+" if kind is int else r"\+?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?"
    for item in items:
        if not re.fullmatch(pattern, item):
            what = "a positive integer" if kind is int else "a positive number"
            raise InputError(f"{option}: {item!r} is not {what}.")
    return [kind(item) for item in items]


def _check(options: LazyOptions, width, seeds, widths, alphas) -> None:
    if options.loss not in _LOSSES:
        raise InputError(f"--loss: {options.loss!r} is not known; it is one of {', '.join(_LOSSES)}.")
    least = {"--train": 2, "--test": 0, "--kernel": 2, "--steps": 1}
    given = {"--train": options.train, "--test": options.test, "--kernel": options.kernel, "--steps": options.steps}
    for name, value in {**given, "--width": width, "--seeds": seeds}.items():
        if value < least.get(name, 1):
            raise InputError(f"{name}: {value} must be at least {least.get(name, 1)}.")
    for name, value in (("--lr", options.lr), ("--alpha", options.alpha)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{name}: {value} must be a positive number.")
    for name, values in (("--width-sweep", widths), ("--alpha-sweep", alphas)):
        if values is not None and (len(set(values)) < 3 or min(values) <= 0):
            raise InputError(f"{name}: a slope needs at least three different positive values, such as 64,128,256.")


def _check_place(out: pathlib.Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {str(out)!r} is a file; give a directory.")
    stranger = out.is_dir() and any(out.iterdir()) and not (out / "laziness.json").exists()
    if stranger:
        raise InputError(f"--out: {str(out)!r} holds other files; give a new or empty directory.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".widelimit-probe").touch()
        (out / ".widelimit-probe").unlink()
    except OSError as error:
        raise InputError(f"--out: cannot write to {str(out)!r}: {error.strerror or error}.") from error


def _data(options: LazyOptions, shape: list[int] | None) -> dict[str, Any]:
    """X, Y, X_test, Y_test as the loss takes them."""
    import numpy as np

    from widelimit.lab import load_data

    data = load_data(options.data, options.target)
    wanted, there = options.train + options.test, data.n
    if options.train >= there:
        raise InputError(f"--train: {options.train} examples and {there} rows in {data.name!r}; give fewer.")
    if shape is not None and int(np.prod(shape)) != data.d:
        raise InputError(
            f"--shape: {','.join(map(str, shape))} has not the {data.d} entries of an example of {data.name!r}."
        )
    X = data.X if shape is None else data.X.reshape(data.n, *shape)
    Y = _targets(options.loss, data)
    order = np.random.default_rng(options.seed).permutation(there)[:wanted]
    train, test = order[: options.train], order[options.train :]
    held_out = (X[test], Y[test]) if len(test) else (None, None)
    return {"X": X[train], "Y": Y[train], "X_test": held_out[0], "Y_test": held_out[1]}


def _targets(loss: str, data):
    import numpy as np

    if loss in ("sum", "mean"):
        return data.Y
    if data.labels is None:
        raise InputError(f"--loss: {loss} needs classes, and the target of {data.name!r} is a number; use sum.")
    if loss == "cross_entropy":
        return np.asarray(data.labels)
    if len(data.classes) != 2:
        raise InputError(f"--loss: logistic needs two classes, and {data.name!r} has {len(data.classes)}.")
    return 2.0 * np.asarray(data.labels)[:, None] - 1.0
