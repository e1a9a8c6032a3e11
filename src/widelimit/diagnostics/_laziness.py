"""The laziness report of one network: trained here, or read from checkpoints."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._precision import enable_x64, exact_products
from widelimit.diagnostics._checkpoints import checked_checkpoints
from widelimit.diagnostics._observer import Observer
from widelimit.diagnostics._result import Laziness
from widelimit.diagnostics._task import Task, labels_of, pretty, task_of
from widelimit.diagnostics._training import Network, log_spaced
from widelimit.diagnostics._verdict import judged
from widelimit.dynamics import CURVATURE

__all__ = ["laziness"]

_OVERFLOW = 1e50  # outputs beyond are those of a training that has diverged
_HESSIAN_EXAMPLES = 4
_HESSIAN_BYTES = 2**30  # of the vectors that Lanczos keeps; beyond, the Hessian is not measured


def laziness(
    model: Any,
    X: Any,
    Y: Any,
    *,
    params: Any = None,
    loss: Any = "sum",
    learning_rate: float | None = None,
    steps: int = 1000,
    alpha: float | None = None,
    X_test: Any = None,
    Y_test: Any = None,
    checkpoints: Sequence[Any] | None = None,
    times: Sequence[int] | None = None,
    examples: int = 256,
    hessian: bool = True,
    key: jax.Array | None = None,
    progress: Callable[[int, int, str], None] | bool | None = None,
) -> Laziness:
    """How lazy a finite network is: it is trained beside its linearisation, and what moves is measured.

    Full-batch gradient descent from the parameters that the model has, ``theta <- theta - learning_rate dL/dtheta``, of
    the network and of ``f_lin = f(theta_0) + df/dtheta (theta - theta_0)``; at steps 0, 1, 2, 5, 10 and so on, drift
    of the empirical NTK, movement of parameters and features, distance to the linearisation, alignment, curvature,
    and at the start the Hessian.  Printing the result gives a page with a verdict and what would change it.

    model: an `nn` module (drawn with `key`, None: ``jax.random.key(0)``), a function ``f(params, x)`` with `params`,
    the pair of these, or what `wl.functional` takes (PyTorch, Flax, Equinox).  X: (n, ...), Y: (n,) or (n, outputs),
    as the loss takes them.  loss: "sum", "mean", "cross_entropy", "logistic" or a function, as in `wl.flow`.
    learning_rate: None: half of the largest one that is stable at the start.  alpha: train ``alpha (f - f_0)`` with the
    loss divided by alpha^2, the larger the lazier; None: f as it is.
    checkpoints: parameters in training, of any optimiser, at the times `times` (None: 1, 2, ...); then nothing is
    trained, and the linearisation is taken at the same parameters.  The model's own parameters are the start.
    examples: the kernel and the features are measured on at most so many training examples; hessian: whether to measure
    it.  progress: called with (done, total, what), or True for a bar.
    Everything is computed in 64 bits.  Raises ValueError or TypeError for what does not fit together, before anything
    is trained.  Source: Chizat, Oyallon and Bach 2019; Lee et al. 2019; Fort et al. 2020; Lewkowycz et al. 2020.
    """
    _check(learning_rate, steps, alpha, examples, checkpoints, times)
    task = task_of("laziness", model, X, Y, params=params, loss=loss, X_test=X_test, Y_test=Y_test, key=key)
    with enable_x64(), exact_products(), _reporter(progress) as told:
        given = None if checkpoints is None else checked_checkpoints(task, checkpoints, times)
        return Run(task, alpha, examples, told).report(learning_rate, steps, given, hessian)


def _check(learning_rate, steps, alpha, examples, checkpoints, times) -> None:
    for name, value, least in (("steps", steps, 1), ("examples", examples, 2)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
            raise ValueError(f"laziness: {name} must be an integer of at least {least}, not {value!r}.")
    for name, value in (("learning_rate", learning_rate), ("alpha", alpha)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"laziness: {name} must be a positive number or None, not {value!r}.")
    if checkpoints is None and times is not None:
        raise ValueError("laziness: times are those of checkpoints, which are not given.")
    if checkpoints is not None and alpha is not None:
        raise ValueError("laziness: alpha belongs to a training that is run here, not to checkpoints; leave it out.")


class _reporter:
    """Context manager: `progress` as a function of (done, total, what)."""

    def __init__(self, progress):
        self._given: Any = progress
        self._bar: Any = None

    def __enter__(self) -> Callable[[int, int, str], None]:
        if not self._given:
            return lambda done, total, what: None
        if self._given is not True:
            return self._given
        from rich.progress import Progress

        bar = self._bar = Progress(transient=True)
        task = bar.add_task("laziness", total=None)
        bar.start()

        def told(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)

        return told

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()


class Run:
    """One network in training, measured at its times."""

    def __init__(self, task: Task, alpha: float | None, examples: int, told: Callable[[int, int, str], None]):
        self.task, self.told, self.notes = task, told, []
        self.began = time.monotonic()
        told(0, 1, "compiling")
        self.network = Network(task, alpha)
        chosen = np.random.default_rng(0).permutation(task.n)[:examples]
        self.rows = np.sort(chosen)
        if len(self.rows) < task.n:
            self.notes.append(
                f"Kernel and features are measured on {len(self.rows)} of the {task.n} training examples, drawn at "
                "random; training, loss, linearisation and λ_max use all (examples= measures on more)."
            )
        self.observer = Observer(self.network, self.rows)
        self.moments: list[dict[str, Any]] = []
        self.diverged = False

    def report(self, learning_rate, steps, checkpoints, hessian) -> Laziness:
        """The whole of it."""
        network, start = self.network, self.network.start
        first = network.observe(start, network.zero)
        top = network.largest_kernel_eigenvalue(start)
        stable = self._stable_rate(top, start, first.train)
        rate = 0.5 * stable if learning_rate is None else float(learning_rate)
        if not np.isfinite(rate):
            raise ValueError(
                "laziness: the network's kernel is 0 on the training examples at the start, so nothing trains. Remedy: "
                "other parameters."
            )
        self.first = first
        curvature = self._hessian(start, first) if hessian else (np.zeros(0), float("nan"))
        self._look(0, start, network.zero, first)
        if checkpoints is None:
            self._train(steps, rate)
        else:
            self._read(*checkpoints)
        settings = self._settings(learning_rate, rate, stable, steps, checkpoints is not None)
        return self._result(settings, rate, stable, curvature)

    def _stable_rate(self, top, start, read) -> float:
        """Largest stable learning rate at the start, from the largest curvature that the loss can have."""
        known = isinstance(self.task.loss, str)
        sharp = CURVATURE[self.task.loss] * self.task.scale * top if known else self.network.sharpness(start, read)
        return 2 / sharp if sharp > 0 else float("inf")

    def _train(self, steps: int, rate: float) -> None:
        network = self.network
        params, moved, before = network.start, network.zero, 0
        for t in log_spaced(steps)[1:]:
            done = before

            def told(now, t=t):
                nonlocal done
                done += now
                self.told(done, steps, "training")

            params, moved = network.advance(params, moved, t - before, rate, told)
            before = t
            if not self._look(t, params, moved, network.observe(params, moved)):
                self.diverged = True
                self.notes.append(f"Training stopped at step {t}, where the outputs had diverged.")
                break

    def _read(self, params, times) -> None:
        for done, (t, p) in enumerate(zip(times, params, strict=True)):
            self.told(done, len(times), "reading checkpoints")
            moved = jax.tree.map(jnp.subtract, p, self.network.start)
            self._look(t, p, moved, self.network.observe(p, moved))

    def _extremes(self) -> dict[str, float]:
        """Of the loss at every step of the training, or at the checkpoints."""
        task, seen = self.task, [m["loss"] for m in self.moments]
        peak, _, rise = map(float, self.network.extremes)
        peak /= task.n * (task.outputs if task.loss == "mean" else 1)
        lowest = np.minimum.accumulate(seen)
        apart = np.divide(seen, lowest, out=np.ones(len(seen)), where=lowest > 0)
        return {"loss_peak": float(max(peak, *seen)), "loss_rise": max(rise, float(apart.max()))}

    @np.errstate(over="ignore", invalid="ignore")  # of a linearisation that has diverged
    def _look(self, t, params, moved, seen) -> bool:
        """Measure; False where the outputs have overflowed, of which nothing is kept but the loss."""
        if not np.abs(seen.train).max() < _OVERFLOW or not all(np.isfinite(a).all() for a in jax.tree.leaves(params)):
            return False
        network, first = self.network, self.first
        sharpness = network.sharpness(params, seen.train)
        squared = self.task.loss in ("sum", "mean")
        moment: dict[str, Any] = {"time": t, "sharpness": sharpness}
        moment["lambda_max"] = sharpness / self.task.scale if squared else network.largest_kernel_eigenvalue(params)
        for name, f, test in (
            ("", seen.train, False), ("_linear", seen.train_linear, False),
            ("_test", seen.test, True), ("_test_linear", seen.test_linear, True),
        ):  # fmt: skip
            if len(f):
                moment["loss" + name] = network.loss(jnp.asarray(f), test=test)
                moment["accuracy" + name] = _accuracy(f, self.task, test=test)
        moment["gap"], moment["change"] = _rms(seen.train - seen.train_linear), _rms(seen.train - first.train)
        moment["gap_test"] = _rms(seen.test - seen.test_linear) if len(seen.test) else None
        moment["kernel"] = self.observer.kernel(params)
        moment["movement"], moment["operator"] = self.observer.movement(params)
        moment["features"] = self.observer.features(params)
        self.moments.append(moment)
        return True

    def _hessian(self, start, first) -> tuple[np.ndarray, float]:
        """Operator norms of the Hessians of single outputs, and kappa."""
        network = self.network
        size = sum(a.size for a in jax.tree.leaves(start))
        if 20 * 8 * size > _HESSIAN_BYTES:
            self.notes.append(f"The Hessian was left out: Lanczos would keep 20 vectors of {size} parameters.")
            return np.zeros(0), float("nan")
        self.told(0, 1, "Hessian")
        chosen = self.rows[:: max(1, len(self.rows) // _HESSIAN_EXAMPLES)][:_HESSIAN_EXAMPLES]
        norms = [network.hessian(int(row), i % self.task.outputs) for i, row in enumerate(chosen)]
        return np.array(norms), network.kappa(first.train)

    def _settings(self, asked, rate, stable, steps, read) -> dict[str, Any]:
        task = self.task
        sizes, operators = self.observer.sizes()
        names = [pretty(p) for p in task.names]
        return {
            "loss": task.loss if isinstance(task.loss, str) else getattr(task.loss, "__name__", "function"),
            "training": "checkpoints" if read else "full-batch gradient descent", "steps": None if read else steps,
            "learning_rate": rate, "learning_rate_given": asked is not None, "stable_rate": stable,
            "centring": self._centring(), "alpha": self.network.alpha, "n": task.n, "n_test": len(task.Y_test),
            "outputs": task.outputs,
            "examples": len(self.rows), "parameters": int(sum(a.size for a in jax.tree.leaves(task.params))),
            "shapes": dict(zip(names, [list(np.shape(a)) for a in jax.tree.leaves(task.params)], strict=True)),
            "sizes": dict(zip(names, sizes, strict=True)),
            "sizes_operator": dict(zip(names, operators, strict=True)),
            "seconds": time.monotonic() - self.began,
        }  # fmt: skip

    def _centring(self) -> float:
        """How much less the outputs have to move if they start at 0: rms(Y) / rms(Y - f_0); 1 where it is not known."""
        task = self.task
        if self.network.alpha is not None or task.loss not in ("sum", "mean"):
            return 1.0
        return min(1.0, _rms(task.Y) / max(_rms(task.Y - self.first.train), np.finfo(float).tiny))

    def _result(self, settings, rate, stable, curvature) -> Laziness:
        moments, names = self.moments, [pretty(p) for p in self.task.names]
        order = sorted(names, key=_natural) if isinstance(self.task.params, dict) else names

        def series(name):
            values = [m.get(name) for m in moments]
            return None if any(v is None for v in values) else np.array(values, np.float64)

        def by_parameter(values):
            found = dict(zip(names, np.array(values, np.float64).T, strict=True))
            return {name: found[name] for name in order}

        kernels = [m["kernel"] for m in moments]
        move, operator = (np.array([m[k] for m in moments], np.float64) for k in ("movement", "operator"))
        sizes = np.array(list(settings["sizes"].values()))
        relative = np.divide(move, sizes, out=np.full_like(move, np.nan), where=sizes > 0)
        movement = np.linalg.norm(move, axis=1)
        traces = np.array([k.trace_by_parameter for k in kernels])
        features = {pretty(p): np.array([m["features"][p] for m in moments]) for p in moments[0]["features"]}
        features = {name: features[name] for name in order if name in features}
        found: dict[str, Any] = {
            "settings": settings, "notes": tuple(self.notes), "times": series("time"),
            **{n: series(n) for n in moments[0] if n.startswith(("loss", "accuracy"))},
            **self._extremes(), "movement": movement, "movement_relative": movement / (np.linalg.norm(sizes) or np.nan),
            **{n: series(n) for n in ("gap", "gap_test", "change", "lambda_max", "sharpness")},
            **{
                n: np.array([getattr(k, n) for k in kernels])
                for n in ("drift", "alignment", "alignment_centred", "effective_rank")
            },
            "drift_by_parameter": by_parameter([k.drift_by_parameter for k in kernels]),
            "alignment_by_parameter": by_parameter([k.alignment_by_parameter for k in kernels]),
            "trace_by_parameter": by_parameter(traces / traces.sum(1, keepdims=True)),
            "movement_by_parameter": by_parameter(move), "movement_relative_by_parameter": by_parameter(relative),
            "movement_operator_by_parameter": by_parameter(operator), "features": features,
            "hessian": curvature[0], "kappa": curvature[1], "learning_rate": rate, "stable_rate": stable,
        }  # fmt: skip
        for name in ("loss_test", "loss_test_linear", "accuracy_test", "accuracy_test_linear"):
            found.setdefault(name, None)
        return judged(Laziness(verdict="", sentence="", advice=(), **found), diverged=self.diverged)


def _natural(name: str) -> list:
    """Dicts come sorted by their keys: 10.weight after 2.weight."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _rms(a) -> float:
    return float(np.sqrt(np.mean(np.square(a)))) if a.size else float("nan")


def _accuracy(f: np.ndarray, task: Task, *, test: bool) -> float | None:
    labels = labels_of(task.Y_test if test else task.Y, task.loss, task.outputs)
    if labels is None:
        return None
    guess = np.sign(f[:, 0]) if task.outputs == 1 else f.argmax(1)
    return float(np.mean(guess == np.sign(labels) if task.outputs == 1 else guess == labels))
