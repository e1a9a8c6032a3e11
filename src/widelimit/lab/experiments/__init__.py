"""The experiments, in the order in which they are run."""

from __future__ import annotations

from widelimit.lab.experiments import (
    _departures,
    _ensemble,
    _exact,
    _gaussian,
    _hessian,
    _initialisation,
    _parameterisation,
    _prediction,
    _prior,
    _rates,
    _rich,
    _scale,
    _spectrum,
    _training,
)
from widelimit.lab.experiments._base import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    e.name: e
    for e in (
        _prediction.EXPERIMENT,  # first: its times are part of the result, and nothing is drawn yet beside it
        _initialisation.EXPERIMENT,
        _training.EXPERIMENT,
        _prior.EXPERIMENT,
        _spectrum.EXPERIMENT,
        _rich.EXPERIMENT,
        _ensemble.EXPERIMENT,
        _scale.EXPERIMENT,
        _rates.EXPERIMENT,
        _departures.FEATURE_LEARNING,
        _departures.LOGISTIC,
        _departures.DECAY,
        _hessian.EXPERIMENT,
        _parameterisation.EXPERIMENT,
        _gaussian.EXPERIMENT,
        _exact.FLOW,
        _exact.CLOSED_FORM,
        _exact.LINEAR,
    )
}

__all__ = ["EXPERIMENTS", "Experiment"]
