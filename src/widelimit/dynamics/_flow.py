"""Gradient descent with a constant kernel: outputs at any time, without training."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import jax.numpy as jnp
import numpy as np

from widelimit.dynamics._decay import Decay
from widelimit.dynamics._integrate import Integrated
from widelimit.dynamics._losses import CURVATURE, SQUARED, TotalLoss, checked_targets
from widelimit.dynamics._noise import batch_noise, batch_runs
from widelimit.dynamics._problem import Problem, prepare, rate_of, ridge_of
from widelimit.dynamics._solutions import ByExponential, ByMode, Solution, product, scale_of_start
from widelimit.solve import Spectrum, spectrum

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from jaxtyping import Float
    from numpy.typing import ArrayLike

    Loss = Literal["sum", "mean", "cross_entropy", "logistic"] | Callable

__all__ = ["Flow", "Steps", "flow", "steps"]


class Flow:
    """Outputs at time t of a network trained by gradient flow; made by `flow`.

    ``F(t)``: training outputs, shape of f0 (with a leading axis for an array of times); ``F(t, K_test, f0_test)``: test
    outputs from ``K_test = Theta(x, X)`` (m, n) and the initial test outputs (None: 0).
    """

    _discrete = False

    def __init__(self, K, Y, *, loss, learning_rate, momentum, ridge, ridge_relative, decay_to, f0, radial, symmetric):
        self._problem: Problem = prepare(K, Y, loss=loss, f0=f0, radial=radial, symmetric=symmetric)
        problem, self._loss_name = self._problem, loss
        self.ridge = ridge_of(problem.K, ridge, ridge_relative)
        _check_decay(decay_to, radial, self.ridge)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), not {momentum!r}.")
        self.rate = rate_of(loss, learning_rate, problem.targets.size)
        self.decay = Decay(self.rate, float(momentum), self._discrete)
        self.spectrum: Spectrum | None = spectrum(problem.K, ridge=self.ridge) if symmetric else None
        self._solution: Solution = self._solved(loss)

    def _solved(self, loss):
        problem = self._problem
        if loss not in SQUARED:
            total = TotalLoss(loss, problem.targets, problem.outputs, problem.squeeze)
            return Integrated(problem, total, self.decay, self.ridge, self.spectrum, isinstance(loss, str))
        R, h = problem.residual(), problem.radial
        if self.spectrum is None:
            return ByExponential(np.asarray(problem.K, np.float64), self.decay, self.ridge, R, h)
        return ByMode(self.spectrum, self.decay, self.ridge, R, h)

    def __call__(
        self,
        t: Float[ArrayLike, "*times"],
        K_test: Float[ArrayLike, "m n ..."] | None = None,
        f0_test: Float[ArrayLike, "m ..."] | None = None,
        radial_test: Float[ArrayLike, "m ..."] | None = None,
    ) -> Float[Any, "*times_points_outputs"]:
        """Outputs at the times t; ValueError for t below 0, and for shapes that do not go with K and Y.

        radial_test: ``df/dtheta theta_0`` of the test points, for decay to zero.
        """
        out = self._problem.shaped(self._outputs(t, K_test, f0_test, radial_test))
        return jnp.asarray(out) if self._problem.as_jax else out

    def _outputs(self, t, K_test, f0_test, radial_test) -> Float[np.ndarray, "*times N C"]:
        times = self._times(t)
        p = self._solution.coordinates(tuple(float(s) for s in times.ravel()))
        solution, test = self._solution, (K_test, f0_test, radial_test)
        out = self._read_out(times.ravel(), lambda: solution.alpha(p), lambda: solution.on_train(p), *test)
        return out.reshape(*times.shape, *out.shape[1:])

    def _read_out(self, times, alpha, on_train, K_test, f0_test, radial_test) -> Float[np.ndarray, "times N C"]:
        """Outputs of ``alpha()``, (times, N, C), of which ``on_train()`` is the product with K."""
        problem = self._problem
        if K_test is None:
            if f0_test is not None or radial_test is not None:
                raise ValueError("f0_test or radial_test is given without K_test.")
            out, h = problem.f0 + on_train(), problem.radial
        else:
            matrix = problem.test_kernel(K_test)
            points = len(matrix) // (problem.outputs if problem.blocks else 1)
            if (radial_test is None) != (problem.radial is None):
                raise ValueError(
                    'radial_test, df/dtheta theta_0 of the test points, goes with decay_to="zero" and only with it.'
                )
            out = problem.test_outputs(f0_test, points, "f0_test") + product(matrix, alpha())
            h = problem.radial if problem.radial is None else problem.test_outputs(radial_test, points, "radial_test")
        if h is not None:
            left = [scale_of_start(self.decay, self.ridge, float(s)) for s in times]
            out = out + (np.reshape(left, (-1, 1, 1)) - 1) * h
        return out

    def _times(self, t) -> np.ndarray:
        times = np.asarray(t, np.float64)
        if np.isnan(times).any() or (times < 0).any():
            raise ValueError("t must be >= 0 (infinity is allowed).")
        return times

    def gain(self, lam: Float[np.ndarray, " n"], t: float) -> Float[np.ndarray, " n"]:
        """``(1 - C_lam(t)) / lam``, the residual C being ``e^(-eta lam t)``, or ``(1 - eta lam)^t`` for steps.

        At lam = 0 its limit, without momentum ``eta t``, and 0 at infinite time (pseudo-inverse).
        """
        return self.decay.gain(lam, float(self._times(t)))

    def modes(self, t: Float[ArrayLike, "*times"]) -> Float[np.ndarray, "*times modes ..."]:
        """What is left to learn along each eigenvector: ``v_i^T (Y - f_t) = e^(-eta lam_i t) v_i^T (Y - f_0)``.

        For ridge 0 and without momentum; in general the solution of the same training.  Eigenvalues are in
        ``F.spectrum.lam``, ascending, and rates ``F.rate * F.spectrum.lam``.  Shape (..., n) or (..., n, outputs);
        (..., n x outputs) for a K with blocks of outputs.  ValueError for losses other than the squared one, and for a
        K that is not symmetric.
        """
        if self.spectrum is None or self._loss_name not in SQUARED:
            raise ValueError(
                "modes need the squared loss and a symmetric K: elsewhere they do not learn by themselves."
            )
        problem, f = self._problem, self._outputs(t, None, None, None)
        if problem.radial is not None or self.ridge > 0:
            out = self.spectrum.V.T @ (problem.residual() + problem.f0 - f)
        else:  # as what is left may be small
            lam = np.where(self.spectrum.kept, self.spectrum.lam, 0.0)
            left = [self.decay.residual(lam, float(s)) for s in self._times(t).ravel()]
            out = np.reshape(left, (*np.shape(t), -1, 1)) * (self.spectrum.V.T @ problem.residual())
        return out[..., 0] if problem.squeeze or problem.blocks else out

    def loss(
        self,
        t: Float[ArrayLike, "*times"],
        K_test: Float[ArrayLike, "m n ..."] | None = None,
        f0_test: Float[ArrayLike, "m ..."] | None = None,
        radial_test: Float[ArrayLike, "m ..."] | None = None,
        *,
        Y_test: ArrayLike | None = None,
    ) -> Float[np.ndarray, "*times"]:
        """Learning curve: the loss that is trained on at the times t, or the same of test outputs against Y_test.

        A sum over examples (for "mean" half the mean of squares), without the ridge.  Test arguments as for a call.
        """
        if (K_test is None) != (Y_test is None):
            raise ValueError("Y_test, the targets of the test points, must be given with K_test and only then.")
        f = self._problem.rows(self._outputs(t, K_test, f0_test, radial_test))
        targets = self._problem.targets
        if Y_test is not None:
            targets = checked_targets(self._loss_name, Y_test, f.shape[-2], "Y_test")
        total = TotalLoss(self._loss_name, targets, self._problem.outputs, self._problem.squeeze)
        flat = f.reshape(-1, *f.shape[-2:])
        return np.array([total.value(g) for g in flat]).reshape(f.shape[:-2])


def _check_decay(decay_to, radial, ridge):
    if decay_to not in ("start", "zero"):
        raise ValueError(f'decay_to must be "start" (the initial parameters) or "zero", not {decay_to!r}.')
    if decay_to == "start" and radial is not None:
        raise ValueError('radial is given without decay_to="zero", where alone it has a use.')
    if decay_to == "zero" and ridge == 0:
        raise ValueError('decay_to="zero" needs a ridge > 0, the strength of the decay.')
    if decay_to == "zero" and radial is None:
        raise ValueError(
            'decay_to="zero" needs radial = df/dtheta theta_0 on the training points: how outputs shrink with the '
            "parameters cannot be read from K. It is jax.jvp(lambda p: f(p, x), (params,), (params,))[1] of a network, "
            "f0 of a model linear in its parameters, L f0 of L layers without biases of a homogeneous nonlinearity."
        )


class Steps(Flow):
    """Outputs after k steps of gradient descent; made by `steps`.  As `Flow`, with the number of steps for t.

    With minibatches F(k) is the mean over the choice of batches, ``F.covariance(k)`` the covariance, ``F.sample(k)``
    gives single runs, also of shuffled epochs.
    """

    _discrete = True

    def __init__(self, K, Y, *, batch, **settings):
        super().__init__(K, Y, **settings)
        n = self._problem.n
        if batch is not None and self._loss_name not in SQUARED:
            raise ValueError('batch needs the squared loss, "sum" or "mean": the mean of others has no closed form.')
        if batch is not None and (not isinstance(batch, int | np.integer) or not 1 <= batch <= n):
            raise ValueError(f"batch must be an integer from 1 to the {n} training points, not {batch!r}.")
        self._batch = batch

    def covariance(
        self, t: Float[ArrayLike, "*times"], K_test: Float[ArrayLike, "m n ..."] | None = None
    ) -> Float[Any, "*times m m ..."]:
        """Covariance over the choice of batches of training outputs, or of test outputs, after t steps.

        Shape (m, m); (m, m, outputs), within each output, for Y (n, outputs); (m, m, outputs, outputs) for a K with
        blocks of outputs.  A step costs six products of (n, n) matrices (with momentum, eight times as much).
        ValueError without `batch`, and for an infinite t.
        """
        times, problem = self._times(t), self._problem
        batch, counts = self._drawn("covariance", times)
        K = np.asarray(problem.K, np.float64) if K_test is None else problem.test_kernel(K_test)
        found = batch_noise(problem, self.decay, self.ridge, batch, counts)
        out = np.stack([K @ found[k] @ K.T for k in counts]).reshape(*times.shape, -1, len(K), len(K))
        out = np.moveaxis(out, -3, -1)
        if problem.blocks:
            O = problem.outputs
            out = out.reshape(*times.shape, len(K) // O, O, len(K) // O, O).swapaxes(-3, -2)
        out = out[..., 0, 0] if problem.blocks and problem.squeeze else out[..., 0] if problem.squeeze else out
        return jnp.asarray(out) if problem.as_jax else out

    def sample(
        self,
        t: Float[ArrayLike, "*times"],
        K_test: Float[ArrayLike, "m n ..."] | None = None,
        f0_test: Float[ArrayLike, "m ..."] | None = None,
        radial_test: Float[ArrayLike, "m ..."] | None = None,
        *,
        draws: int = 100,
        order: Literal["epochs", "anew"] = "epochs",
        seed: int = 0,
    ) -> Float[Any, "draws *times points_outputs"]:
        """Outputs of `draws` single runs, each with batches of its own, after t steps, (draws, ...) of what F(t) is.

        order: "epochs" takes each example once in an epoch, shuffled anew for each, the last batch being smaller where
        batch does not divide n (its gradient is scaled by n over its size); "anew" are the batches of F(t) and
        `covariance`.  The same seed gives the same runs, for training and test outputs.  Means over draws have the
        standard error ``std / sqrt(draws)``.  A step costs draws x batch x n.  ValueError without `batch`, for an
        infinite t, another order and draws that are no integer >= 1.
        """
        times, problem = self._times(t), self._problem
        batch, counts = self._drawn("sample", times)
        if order not in ("epochs", "anew"):
            raise ValueError(f'order must be "epochs" or "anew", not {order!r}.')
        if not isinstance(draws, int | np.integer) or draws < 1:
            raise ValueError(f"draws must be an integer >= 1, not {draws!r}.")
        found = batch_runs(problem, self.decay, self.ridge, batch, counts, int(draws), seed, order == "epochs")
        alpha = np.concatenate([found[k] for k in counts]) if counts else np.zeros((0, *problem.f0.shape))
        K = np.asarray(problem.K, np.float64)
        test = (K_test, f0_test, radial_test)
        out = self._read_out(np.repeat(counts, draws), lambda: alpha, lambda: product(K, alpha), *test)
        out = problem.shaped(np.moveaxis(out.reshape(*times.shape, draws, *out.shape[1:]), times.ndim, 0))
        return jnp.asarray(out) if problem.as_jax else out

    def _drawn(self, name, times) -> tuple[int, list[int]]:
        """Size of batches, and the numbers of steps."""
        if self._batch is None or not np.isfinite(times).all():
            raise ValueError(f"{name} needs minibatches, wl.steps(..., batch=), and finite numbers of steps.")
        return int(self._batch), [int(s) for s in times.ravel()]

    def _times(self, t):
        times = super()._times(t)
        finite = times[np.isfinite(times)]
        if (finite != np.floor(finite)).any():
            raise ValueError(f"the number of steps must be an integer, not {finite[finite != np.floor(finite)][0]:g}.")
        if np.isinf(times).any() and self.spectrum is not None and isinstance(self._loss_name, str):
            top = CURVATURE[self._loss_name] * (self.spectrum.lam.max() - self.ridge) + self.ridge
            if self.rate * top >= 2 * (1 + self.decay.momentum):
                raise ValueError(
                    "an infinite number of steps diverges: the learning rate is above 2 (1 + momentum) / lambda_max "
                    "(for other losses, it may do so); see wl.max_learning_rate."
                )
        return times


def flow(
    K: Float[ArrayLike, "n n ..."],
    Y: Float[ArrayLike, "n ..."],
    *,
    loss: Loss = "sum",
    learning_rate: float = 1.0,
    momentum: float = 0.0,
    ridge: float = 0.0,
    ridge_relative: bool = False,
    decay_to: Literal["start", "zero"] = "start",
    f0: Float[ArrayLike, "n ..."] | None = None,
    radial: Float[ArrayLike, "n ..."] | None = None,
    symmetric: bool = True,
) -> Flow:
    """Gradient flow with a constant kernel: in closed form for the squared loss, as an ODE for any other.

    ``df/dt = -eta K dL/df``, which for the squared loss, with ``f_0`` the initial outputs, is

        f_t(x) = f_0(x) + Theta(x, X) (Theta + ridge I)^-1 (I - e^(-eta (Theta + ridge I) t)) (Y - f_0(X)).

    K: (n, n) NTK of the training points, the same for each output, or (n, n, outputs, outputs) with blocks of outputs
    (``output="full"``).  Y: (n,) or (n, outputs).  loss: "sum" is ``1/2 sum (f - Y)^2``, "mean" half the mean over all
    n x outputs entries (then eta is divided by their number); "cross_entropy" ``-sum_i log softmax(f_i)[Y_i]``, Y class
    numbers (n,) or probabilities (n, outputs); "logistic" ``sum log(1 + e^(-Y f))``, Y = -1 or +1; or a function
    ``loss(output, target)`` of one example, written in JAX, which is summed over examples.

    momentum m > 0: the ODE of heavy ball with t in steps, ``v' = -(1 - m) v - gradient, theta' = eta v`` (0 is gradient
    flow).  ridge: weight decay ``ridge/2 |theta - theta_0|^2`` in the units of K (times the mean of K's diagonal if
    `ridge_relative`), or ``ridge/2 |theta|^2`` with decay_to="zero", which needs radial = ``df/dtheta theta_0``, of the
    shape of f0.  f0: (n, outputs) initial outputs; None: 0.  symmetric: False for a K that is not, for example with the
    sign of one gradient; K[i, j] is the change of output i by example j.

    Returns F with ``F(t)`` and ``F(t, K_test, f0_test)``, t from 0 to infinity; see `Flow`.  Float64 inside; NumPy or
    JAX out as K and Y are.  A singular K gives a SingularGramWarning and the pseudo-inverse limit.  Raises ValueError
    for shapes that do not fit, NaN, an asymmetric K, targets that the loss does not take; for infinite t where there
    is no limit.  Source: Jacot et al. 2018, section 5; Lee et al. 2019, eq. 8-11; Qian 1999 (momentum).
    """
    return Flow(
        K,
        Y,
        loss=loss,
        learning_rate=learning_rate,
        momentum=momentum,
        ridge=ridge,
        ridge_relative=ridge_relative,
        decay_to=decay_to,
        f0=f0,
        radial=radial,
        symmetric=symmetric,
    )


def steps(
    K: Float[ArrayLike, "n n ..."],
    Y: Float[ArrayLike, "n ..."],
    *,
    loss: Loss = "sum",
    learning_rate: float = 1.0,
    momentum: float = 0.0,
    ridge: float = 0.0,
    ridge_relative: bool = False,
    decay_to: Literal["start", "zero"] = "start",
    f0: Float[ArrayLike, "n ..."] | None = None,
    radial: Float[ArrayLike, "n ..."] | None = None,
    symmetric: bool = True,
    batch: int | None = None,
) -> Steps:
    """Gradient descent in steps of size eta with a constant kernel: ``f_k = Y + (I - eta K)^k (f_0 - Y)`` for ridge 0.

    Arguments as in `flow`, with momentum as heavy ball, ``v <- m v - gradient, theta <- theta + eta v``; F(k) after k
    steps, exactly what gradient descent of the linearised network gives.  Losses other than the squared one are
    stepped through.  batch: size of minibatches (squared loss only), distinct examples drawn anew at each step, whose
    gradient is scaled by n / batch: F(k) is the mean of the outputs, `Steps.covariance` their noise.  Warns where
    ``eta lambda_max > 2 (1 + momentum)`` with the squared loss, for the iteration then grows without bound (the values
    returned are still its own; the noise of minibatches may grow at smaller rates).  Raises ValueError as `flow`, for a
    batch that is no integer from 1 to n, and from F for a number of steps that is no integer.
    """
    out = Steps(
        K,
        Y,
        loss=loss,
        learning_rate=learning_rate,
        momentum=momentum,
        ridge=ridge,
        ridge_relative=ridge_relative,
        decay_to=decay_to,
        f0=f0,
        radial=radial,
        symmetric=symmetric,
        batch=batch,
    )
    if out.spectrum is None or loss not in SQUARED:
        return out
    top = out.rate * out.spectrum.lam[-1]
    bound = 2 * (1 + momentum)
    if top > bound:
        warnings.warn(
            f"learning_rate x lambda_max = {top:.3g} > {bound:.3g}: gradient descent of the linearised network "
            f"diverges; stay below {learning_rate * bound / top:.3g} (wl.max_learning_rate).",
            RuntimeWarning,
            stacklevel=2,
        )
    return out
