"""The main job: check everything that was asked for, then run the experiments and judge the claims.

What can be refused is refused here before JAX is loaded: a slip of the pen is answered at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from widelimit import __version__
from widelimit.lab._claims import claims_for
from widelimit.lab._data import load_data
from widelimit.lab._errors import SettingsError
from widelimit.lab._settings import Settings
from widelimit.lab._store import Store, check_place
from widelimit.lab._task import make_task
from widelimit.lab.figures import FIGURES

if TYPE_CHECKING:
    from widelimit.lab._session import Session

Progress = Callable[[dict[str, Any]], None]
FigureMade = Callable[[dict[str, Any]], None]


def run(
    settings: Settings,
    out: Path | str | None = None,
    progress: Progress | None = None,
    figure_made: FigureMade | None = None,
) -> dict[str, Any]:
    """Run the lab and return the results document (docs: results schema 1).

    With ``out`` every finished experiment is kept there at once, so that a run that was interrupted goes on
    where it was, and ``results.json`` is written at the end.  ``figure_made`` is called with each entry of
    ``figures`` as soon as it is known, so that it can be drawn meanwhile.  Raises SettingsError, DataError or
    OutputError before any work.
    """
    claims = [c for c in claims_for(settings.activation) if settings.claims is None or c.id in settings.claims]
    needed = {name for c in claims for name in c.experiments}
    if settings.claims is None:
        needed |= {name for figure in FIGURES.values() for name in figure.experiments}
    session = _begin(settings, out, progress, figure_made)
    session.perform(needed, [f.id for f in FIGURES.values() if set(f.experiments) <= needed])
    document = session.document("lab", claims)
    session.store.write_results(document)
    return document


def run_figure(
    name: str, settings: Settings, out: Path | str | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Run what one figure needs and return a document of kind "figure" that holds it; raises as :func:`run`
    does.
    """
    by_name = {k.lower(): k for k in FIGURES}
    if str(name).lower() not in by_name:
        raise SettingsError(f"unknown figure {name!r}; there are {', '.join(FIGURES)}.")
    spec = FIGURES[by_name[str(name).lower()]]
    session = _begin(settings, out, progress)
    session.perform(spec.experiments, [spec.id])
    return session.document("figure", [])


def _begin(
    settings: Settings, out: Path | str | None, progress: Progress | None, figure_made: FigureMade | None = None
) -> Session:
    settings = settings.resolved()
    if out is not None:
        check_place(Path(out))
    data = load_data(settings.data, settings.target)
    task = make_task(data, settings.seed)
    chosen = {k: v for k, v in settings.as_dict().items() if k != "claims"}
    source = f"{data.name} (sha256 {data.sha256[:16]})"
    store = Store(out, {**chosen, "data": source, "version": __version__})

    from widelimit.lab._context import Context
    from widelimit.lab._session import Session

    return Session(Context(settings, data, task), store, progress, figure_made)
