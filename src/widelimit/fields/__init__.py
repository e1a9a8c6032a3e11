"""The graph of wide random fields and the rules for their covariances."""

from widelimit.duals import DEFAULT_POINTS
from widelimit.fields._composition import (
    affine,
    applied,
    combined,
    constant_expression,
    is_number,
    substitute,
)
from widelimit.fields._copies import copied, group_stride, without_copies
from widelimit.fields._covariance import Covariance
from widelimit.fields._errors import UnknownLimitError
from widelimit.fields._expanding import LARGEST, crowded, expanded
from widelimit.fields._expression import (
    Apply,
    Derivative,
    Literal,
    Parameter,
    Variable,
    dual_of,
    has_parameters,
)
from widelimit.fields._node import (
    Axes,
    Const,
    Copies,
    Ew,
    Frozen,
    Joint,
    Linear,
    Loop,
    Mat,
    Merge,
    Node,
    Noise,
    Prior,
    Prod,
    Score,
    Split,
    State,
    Sum,
    Take,
    Vec,
    Window,
    Windows,
)
from widelimit.fields._product import channel_sources
from widelimit.fields._recurrence import Given, Recurrence, direct_sources
from widelimit.fields._sensitivity import is_elementwise, sensitivity

__all__ = [
    "Apply", "Axes", "Const", "Copies", "Covariance", "DEFAULT_POINTS", "Derivative", "Ew", "Frozen", "Given", "Joint",
    "LARGEST", "Linear", "Literal", "Loop", "Mat", "Merge", "Node", "Noise", "Parameter", "Prior", "Prod", "Recurrence",
    "Score", "Split", "State", "Sum", "Take", "UnknownLimitError", "Variable", "Vec", "Window", "Windows", "affine",
    "applied", "channel_sources", "combined", "constant_expression", "copied", "crowded", "direct_sources", "dual_of",
    "expanded", "group_stride", "has_parameters", "is_elementwise", "is_number", "sensitivity", "substitute",
    "without_copies",
]  # fmt: skip
