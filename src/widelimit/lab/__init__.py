"""The lab: experiments that judge the claims about the infinite-width limit on real data, as plain
results.
"""

from widelimit.lab._activations import ACTIVATIONS
from widelimit.lab._claims import CLAIMS, Claim
from widelimit.lab._data import Dataset, load_data
from widelimit.lab._errors import DataError, LabError, OutputError, SettingsError
from widelimit.lab._run import run, run_figure
from widelimit.lab._settings import EFFORTS, Settings
from widelimit.lab.figures import FIGURES, FigureSpec

__all__ = [
    "ACTIVATIONS",
    "CLAIMS",
    "EFFORTS",
    "FIGURES",
    "Claim",
    "DataError",
    "Dataset",
    "FigureSpec",
    "LabError",
    "OutputError",
    "Settings",
    "SettingsError",
    "load_data",
    "run",
    "run_figure",
]
