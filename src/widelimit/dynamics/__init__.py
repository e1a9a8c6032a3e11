"""Training without training: networks with a constant kernel at any time, and the Gaussian processes they are."""

from widelimit.dynamics._ensemble import GaussianProcess, ntk_ensemble, posterior
from widelimit.dynamics._flow import Flow, Steps, flow, steps
from widelimit.dynamics._learning_rate import max_learning_rate

__all__ = [
    "Flow",
    "GaussianProcess",
    "Steps",
    "flow",
    "max_learning_rate",
    "ntk_ensemble",
    "posterior",
    "steps",
]
