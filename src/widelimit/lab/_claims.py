"""The claims about the infinite-width limit that the lab judges, with their theory and acceptance."""

from __future__ import annotations

from dataclasses import dataclass, replace

from widelimit.lab._activations import KINKED


@dataclass(frozen=True)
class Claim:
    """One checkable claim.

    post: what the expository post says; statement: what is checked (for A, B, C the corrected statement);
    theory_slope: the exponent of theory, None where there is none; acceptance: the band of the verdict; highest: the
    largest slope accepted of what vanishes as the kernel's drift does.
    """

    id: str
    section: str
    title: str
    post: str
    statement: str
    theory: str
    theory_slope: float | None
    acceptance: str
    experiments: tuple[str, ...]
    figures: tuple[str, ...]
    highest: float | None = None


def claims_for(activation: str) -> tuple[Claim, ...]:
    """The claims as they read for an activation: with kinks the drift of the kernel falls as N^-½, not as N^-1.

    A preactivation moves by N^-½, so a share of N^-½ of the units cross the kink, and each of these changes its
    derivative by O(1).  At moderate widths the N^-1 of the others is the larger part: slopes between the two.
    """
    if activation not in KINKED:
        return CLAIMS
    return tuple(c if c.highest is None else _kinked(c) for c in CLAIMS)


def _kinked(claim: Claim) -> Claim:
    return replace(
        claim,
        theory=claim.theory.replace("N^-1", "N^-½"),
        theory_slope=-0.5,
        acceptance=claim.acceptance.replace(f"slope ≤ {claim.highest:g}", f"slope ≤ {_HIGHEST_KINKED:g}"),
        highest=_HIGHEST_KINKED,
    )


_HIGHEST_KINKED = -0.4

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "1", "4.1", "Random networks are Gaussian",
        "A random network's output becomes Gaussian (NNGP).",
        "The joint law of f(X) tends to N(0, K_NNGP). For one hidden ReLU layer without bias the excess "
        "kurtosis of "
        "f(x) is exactly 15/N for every x; the covariance given the hidden layers errs by N^-½ per draw.",
        "excess kurtosis 15/N", -1.0,
        "kurtosis·N = 15 ± 5 % at N ≤ 32, ± 20 % at N = 128 (4·10⁵ draws); covariance slope in [-0.6, -0.4]",
        ("gaussian", "initialisation"), ("F2", "F3"),
    ),
    Claim(
        "2", "4.1", "The NTK at the start is deterministic",
        "The NTK is deterministic at initialisation.",
        "‖K̂₀ − K∞‖_F / ‖K∞‖_F → 0, per draw as N^-½.",
        "N^-½", -0.5, "slope in [-0.6, -0.4] with at least 16 seeds per width",
        ("initialisation",), ("F3", "F5"),
    ),
    Claim(
        "3", "4.1", "The NTK stays constant during training",
        "The NTK is constant during training.",
        "sup_t ‖K_t − K_0‖ / ‖K_0‖ → 0; proved at least as fast as N^-½, in truth as N^-1 for smooth activations. "
        "For ReLU as N^-½, because units cross the kink: measured on one hidden layer, from N^-0.8 at a width of 128 "
        "to N^-0.53 at 32768.",
        "N^-1", -1.0, "slope ≤ -0.7 over the upper widths",
        ("training",), ("F6", "F5"), highest=-0.7,
    ),
    Claim(
        "4", "4.1", "The NTK drives the outputs",
        "The NTK is J Jᵀ and drives f.",
        "df(x)/dt = K_t(x, X)(Y − f(X)) at any width, exactly: one step of size η departs from it by O(η).",
        "error ∝ η", 1.0, "slope of the relative error in the step size ≥ 0.9 at every width",
        ("flow",), (),
    ),
    Claim(
        "5", "4.1", "Training equals training the linearised network",
        "The network trains like its linearisation.",
        "sup_t RMSE(f_t, f_t^lin) → 0 from the same θ₀ with the network's own K̂₀.",
        "N^-1 (proved: at least N^-½)", -1.0, "slope ≤ -0.6 over the upper widths",
        ("training",), ("F9",), highest=-0.6,
    ),
    Claim(
        "5b", "4.1", "The infinite kernel can replace the network's own",
        "Its kernel may be replaced by the infinite one.",
        "sup_t RMSE(f_t, f_t^∞) → 0 with K∞ and the network's own f₀; the fluctuation of K̂₀ dominates.",
        "N^-½", -0.5, "slope in [-0.6, -0.35]",
        ("training",), ("F9",),
    ),
    Claim(
        "5c", "4.1", "The mean of many networks is the closed form",
        "The ensemble follows the closed form.",
        "E f_T(x) − µ_T(x) → 0 as N^-1.",
        "N^-1", -1.0, "mean of 100 networks within 3 standard errors of the closed form at N ≥ 256",
        ("ensemble",), ("F11",),
    ),
    Claim(
        "6", "4.1", "The Hessian vanishes with width, in operator norm",
        "The Hessian vanishes with width.",
        "‖∇²_θ f(x)‖_op ~ N^-½, while the Frobenius norm does not vanish.",
        "N^-½ (operator), N^0 (Frobenius)", -0.5,
        "operator slope in [-0.6, -0.35]; Frobenius slope in [-0.1, 0.1]",
        ("hessian",), (),
    ),
    Claim(
        "7", "4.1", "The parameters barely move",
        "The parameters barely move.",
        "Three statements: ‖Δθ‖ = Θ(1); ‖Δθ‖/‖θ₀‖ ~ N^-1 (two or more hidden layers, N large against the inputs; "
        "N^-½ with one; at these widths as the root of the number of parameters); per layer, relative: first and last "
        "N^-½, hidden N^-1 (Frobenius) and N^-½ (operator norm).",
        "0; -1; -½, -1, -½; -½", None, "each slope within ± 0.15 of theory over the upper widths",
        ("training",), ("F7",),
    ),
    Claim(
        "8", "4.1", "No features are learned",
        "There is no feature learning.",
        "The rms change of hidden preactivations ~ N^-½; in the mean-field (μP) scaling it does not depend "
        "on N.",
        "N^-½ (μP: N^0)", -0.5, "slope in [-0.6, -0.4] in every hidden layer; μP slope in [-0.1, 0.1]",
        ("training", "features"), ("F14",),
    ),
    Claim(
        "9", "4.1", "Squared loss is solved in closed form",
        "The dynamics of squared loss can be solved analytically, without training.",
        "f_t(x) = f₀(x) + K(x, X) K⁻¹ (I − e^{−ηKt})(Y − f₀(X)); for steps of gradient descent (I − ηK)^t "
        "replaces "
        "the exponential.",
        "exact", None,
        "flow = ODE solver to 1e-8; steps = gradient descent of the linearised network to 1e-10",
        ("closed_form",), ("F9", "F13"),
    ),
    Claim(
        "10", "4.1", "A linear model has a constant NTK",
        "For a linear model the NTK is constant, \"XXᵀ\".",
        "f = x W/√d has K = XXᵀ/d ⊗ I_out (rows are samples) at every t.",
        "exact", None, "relative drift ≤ 1e-14",
        ("linear",), (),
    ),
    Claim(
        "11", "4.1", "Gradient descent follows the flow below 2/λmax",
        "Full-batch gradient descent approximates the flow.",
        "It needs η < 2/λmax(K̂₀): below, the drift of the kernel vanishes, as N^-1 for smooth activations "
        "(N^-½ for ReLU, see claim 3).",
        "N^-1", -1.0, "slope ≤ -0.8 at every η below 2/λmax over the upper widths",
        ("rates",), ("F16",), highest=-0.8,
    ),
    Claim(
        "12", "4.1", "Generalisation: sometimes worse, sometimes better",
        "The limit generalises worse than finite networks.",
        "Not in general: for fully connected networks the kernel is as good or better on much of real data; "
        "where a "
        "target rewards learning features (and for convolutional networks, by published results) networks "
        "win.",
        "both signs", None,
        "both signs shown: kernel ≥ networks on the data, networks > kernel on a two-coordinate target",
        ("prediction", "rich"), ("F21",),
    ),
    Claim(
        "14", "4.1", "The NTK parameterisation stabilises the learning rate",
        "The standard parameterisation lets only the forward pass be stable, the NTK one both.",
        "Largest stable η: NTK parameterisation N^0, standard N^-1; trace of K: O(1) against O(N). At widths that are "
        "not large against the inputs the standard kernel is A + N B, and its exponents are those of that sum.",
        "0 and -1; 0 and 1", -1.0, "each slope within ± 0.1 of theory over the upper widths",
        ("parameterisation",), (),
    ),
    Claim(
        "A", "4.2", "Another loss does not break the limit",
        "A different loss breaks the limit.",
        "For any smooth loss and fixed time the kernel stays constant as N → ∞; what is lost is the closed "
        "form, and "
        "for the logistic loss uniformity in t: at fixed N ‖Δθ‖ keeps growing like log t.",
        "N^-1 at fixed t", -1.0, "slope ≤ -0.7 over the upper widths; ‖Δθ‖ still growing under logistic loss",
        ("logistic",), (), highest=-0.7,
    ),
    Claim(
        "B", "4.2", "Large learning rates break it, at a sharp threshold",
        "Large learning rates break it.",
        "True, sharply: for η > 2/λmax the drift is O(1), independent of N, and the loss still converges "
        "(catapult) "
        "until it diverges.",
        "N^0 above 2/λmax", 0.0,
        "slope in [-0.2, 0.2] at η·λmax = 2.5 and 3.5 with every loss below its start in the end; "
        "divergence at 16",
        ("rates",), ("F16",),
    ),
    Claim(
        "C", "4.2", "Weight decay to zero breaks it, decay to the start does not",
        "Weight regularisation breaks it.",
        "Decay to zero does: the kernel itself decays, with a drift that does not vanish with N. Decay to "
        "θ₀ does not: "
        "it is kernel ridge regression.",
        "N^0 (to zero), N^-1 (to θ₀)", -1.0,
        "to zero: slope in [-0.2, 0.2]; to θ₀: slope ≤ -0.7; over the upper widths",
        ("decay",), (), highest=-0.7,
    ),
)  # fmt: skip
