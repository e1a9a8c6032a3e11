"""Any other loss: training integrated in time, or step by step, with the kernel constant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from widelimit._precision import enable_x64
from widelimit.dynamics._losses import TotalLoss
from widelimit.dynamics._solutions import product, scale_of_start

if TYPE_CHECKING:  # shapes in signatures, for readers and type checkers: nothing is loaded
    from widelimit.dynamics._decay import Decay
    from widelimit.dynamics._problem import Problem
    from widelimit.solve import Spectrum

__all__ = ["Integrated"]

# Up to this many unknowns the solver may form the Jacobian (its memory is the square, its time the cube).
_DENSE = 2048
_RTOL, _ATOL = 1e-10, 1e-11
_STUCK = (
    "the equation of training could not be integrated to t = {:g}: {} Remedies: a loss with a continuous gradient (the "
    "absolute loss has none), a shorter time, or wl.steps."
)


class Integrated:
    """``p' = -c (B^T g(f_0 + A p + beta h) + ridge p)``, with g the gradient of the loss by the outputs.

    For a symmetric ``K = V diag(s) V^T`` these are the parameters themselves in the n directions that matter,
    ``A = B = V sqrt(s)``: errors of p are errors of outputs times at most sqrt(K).  Else ``A = K, B = I``.
    With momentum ``p'' = -(1 - m) p' - c (...)``.  All is scaled so that p has the units of the outputs.
    """

    def __init__(
        self, problem: Problem, loss: TotalLoss, decay: Decay, ridge: float, spectrum: Spectrum | None, convex
    ):
        self._problem, self._loss, self._decay, self._ridge = problem, loss, decay, ridge
        self._convex = convex and spectrum is not None
        if spectrum is None:
            K = np.asarray(problem.K, np.float64)
            unit = max(float(np.linalg.norm(K, 2)), np.finfo(float).tiny)
            self._readout, self._pull, self._lift = K / unit, unit * np.eye(len(K)), np.eye(len(K)) / unit
            self._top = unit
        else:
            s = np.maximum(np.where(spectrum.kept, spectrum.lam, 0.0) - ridge, 0.0)
            some = s > len(s) * np.finfo(float).eps * s.max()  # without ridge those kept, of which null ones never move
            root, V = np.sqrt(s[some]), spectrum.V[:, some]
            unit = root.max(initial=np.finfo(float).tiny)
            self._top = unit**2  # B = top A
            self._readout, self._pull, self._lift = V * (root / unit), V * (root * unit), V / (root * unit)
        self._shape = (self._readout.shape[1], problem.f0.shape[1])
        self._cached: tuple = ((), None)

    def coordinates(self, times):
        """p at the times; the last answer is kept, as training and test outputs are mostly asked for together."""
        if self._cached[0] != times:
            solve = self._by_steps if self._decay.discrete else self._by_time
            asked = sorted({t for t in times if np.isfinite(t)})
            found = dict(zip(asked, solve(asked), strict=True))
            if len(asked) < len(set(times)):
                found[np.inf] = self._minimum()
            self._cached = (times, np.stack([found[t] for t in times]) if times else np.zeros((0, *self._shape)))
        return self._cached[1]

    def alpha(self, p):
        """alpha of coordinates p."""
        return product(self._lift, p)

    def on_train(self, p):
        """``Theta(X, X) alpha``."""
        return product(self._readout, p)

    def _outputs(self, p, w):
        """Outputs at p where ``1 + beta = w``, as the loss sees them."""
        f = self._problem.f0 + self._readout @ p
        return self._problem.rows(f if self._problem.radial is None else f + (w - 1) * self._problem.radial)

    def _slope(self, p, w):
        """Minus the gradient: ``-(B^T g + ridge p)``."""
        g = self._problem.columns(self._loss.gradient(self._outputs(p, w)))
        return -(self._pull.T @ g + self._ridge * p)

    def _curvature(self, p, w):
        """Derivative of the slope by p, a matrix."""
        H = self._loss.hessian(self._outputs(p, w))
        q, C = self._shape
        if self._problem.blocks:
            A, B = (M.reshape(len(H), -1, q) for M in (self._readout, self._pull))
            full = np.einsum("kai,kab,kbj->ij", B, H, A, optimize=True)
        else:
            full = np.empty((q, C, q, C))
            for a in range(C):
                for b in range(C):
                    full[:, a, :, b] = (self._pull.T * H[:, a, b]) @ self._readout
            full = full.reshape(q * C, q * C)
        return -(full + self._ridge * np.eye(q * C))

    def _by_time(self, times):
        from scipy.integrate import solve_ivp  # here: `import widelimit` must stay quick

        c, m, size = self._decay.rate, self._decay.momentum, int(np.prod(self._shape))
        friction = 1 - m

        left, stiff = self._allowed(times[-1] if times else 0.0), (2 if m else 1) * size <= _DENSE

        def velocity(t, state):
            nonlocal left
            left -= 1
            if left < 0:
                raise RuntimeError(_STUCK.format(times[-1], f"it has made no way since t = {t:g}."))
            p = state[:size].reshape(self._shape)
            force = c * self._slope(p, self._left(t)).ravel()
            return np.concatenate([state[size:], force - friction * state[size:]]) if m else force

        def jacobian(t, state):
            J = c * self._curvature(state[:size].reshape(self._shape), self._left(t))
            if not m:
                return J
            return np.block([[np.zeros((size, size)), np.eye(size)], [J, -friction * np.eye(size)]])

        start = np.zeros(2 * size if m else size)
        if not times or times[-1] == 0 or size == 0:
            return [np.zeros(self._shape) for _ in times]
        method: dict[str, Any] = {"method": "LSODA", "jac": jacobian} if stiff else {"method": "DOP853"}
        out = solve_ivp(velocity, (0.0, times[-1]), start, t_eval=times, rtol=_RTOL, atol=_ATOL, **method)
        if not out.success or not np.all(np.isfinite(out.y)):
            raise RuntimeError(_STUCK.format(times[-1], out.message))
        return list(out.y[:size].T.reshape(len(times), *self._shape))

    def _allowed(self, t):
        """Evaluations after which a solver is taken to be stuck: some 25 times what smooth losses need."""
        force, friction = self._decay.rate * (self._top + self._ridge), 1 - self._decay.momentum
        waves = force**0.5 * min(t, 100 / friction) if self._decay.momentum else 0.0
        explicit = force * t / friction if int(np.prod(self._shape)) > _DENSE // 2 else 0.0
        return 100_000 + 1000 * waves + 100 * explicit

    def _left(self, t):
        return 1.0 if self._problem.radial is None else scale_of_start(self._decay, self._ridge, t)

    def _by_steps(self, times):
        c, m, r = self._decay.rate, self._decay.momentum, self._ridge
        problem = self._problem
        with enable_x64():
            f0, A, B = jnp.asarray(problem.f0), jnp.asarray(self._readout), jnp.asarray(self._pull)
            h = jnp.asarray(0.0 if problem.radial is None else problem.radial)

            def step(_, state):
                p, u, w, v = state
                f = problem.rows(f0 + A @ p + (w - 1) * h)
                g = problem.columns(self._loss.traced_gradient(f))
                u, v = m * u - c * (B.T @ g + r * p), m * v - c * r * w
                return p + u, u, w + v, v

            advance = jax.jit(lambda state, k: jax.lax.fori_loop(0, k, step, state))
            zero = jnp.zeros(self._shape)
            state, done, out = (zero, zero, jnp.ones(()), jnp.zeros(())), 0, []
            for t in times:
                state, done = advance(state, int(t) - done), int(t)
                out.append(np.asarray(state[0]))
        return out

    def _minimum(self):
        """p at infinite time: the minimum of a convex loss plus ridge, by Newton's method."""
        size = int(np.prod(self._shape))
        if not self._convex or self._ridge == 0 or size > _DENSE:
            raise ValueError(
                "t must be finite for this loss: a limit is found only for a named loss with ridge > 0, a symmetric K "
                f"and up to {_DENSE} (n x outputs) unknowns; without ridge the outputs may grow for ever."
            )
        w = 1.0 if self._problem.radial is None else 0.0

        def energy(p):  # its gradient is minus the slope
            return self._top * self._loss.value(self._outputs(p, w)) + self._ridge / 2 * float(np.sum(p**2))

        p = np.zeros(self._shape)
        for _ in range(200):
            slope = self._slope(p, w)
            move = np.linalg.solve(-self._curvature(p, w), slope.ravel()).reshape(self._shape)
            descent, here, part = float(np.sum(slope * move)), energy(p), 1.0
            if np.abs(move).max(initial=0.0) <= 1e-13 * (1 + np.abs(p).max(initial=0.0)):
                return p
            while part > 1e-10 and energy(p + part * move) > here - 1e-4 * part * descent + 1e-14 * abs(here):
                part /= 2
            p = p + part * move
        raise RuntimeError("Newton's method found no minimum in 200 steps; give a finite t or a larger ridge.")
