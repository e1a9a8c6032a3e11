"""Training without training: closed forms for a constant kernel."""

from widelimit.dynamics._ensemble import GaussianProcess, ntk_ensemble, posterior
from widelimit.dynamics._flow import Flow, Steps, flow, max_learning_rate, steps

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
