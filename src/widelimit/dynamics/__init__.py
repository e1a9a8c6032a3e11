"""Training without training: networks with a constant kernel at any time, and the Gaussian processes they are."""

from widelimit.dynamics._ensemble import GaussianProcess, ntk_ensemble, posterior
from widelimit.dynamics._evidence import LeaveOneOut, leave_one_out, log_marginal_likelihood
from widelimit.dynamics._flow import Flow, Steps, flow, steps
from widelimit.dynamics._learning_curve import LearningCurve, learning_curve
from widelimit.dynamics._learning_rate import max_learning_rate
from widelimit.dynamics._losses import CURVATURE, SQUARED, checked_targets, loss_of_example

__all__ = [
    "CURVATURE",
    "Flow",
    "GaussianProcess",
    "LearningCurve",
    "LeaveOneOut",
    "SQUARED",
    "Steps",
    "checked_targets",
    "flow",
    "learning_curve",
    "leave_one_out",
    "log_marginal_likelihood",
    "loss_of_example",
    "max_learning_rate",
    "ntk_ensemble",
    "posterior",
    "steps",
]
