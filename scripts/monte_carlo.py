"""Writes docs/architectures.md: the limit of each architecture beside finite networks of growing width.

    uv run --extra test --with flax --with torch scripts/monte_carlo.py       # an hour on two cores
    uv run --extra test scripts/monte_carlo.py --only "mlp"                   # prints rows, writes nothing
    python scripts/monte_carlo.py --jobs 8 --widths 64 128 256 512 1024       # eight processes, on a large machine

The networks are in `scripts/architectures.py`; those of a framework that is not installed are left out.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import pathlib
import sys
import time
from typing import Any

import jax
import numpy as np
from architectures import rows

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "architectures.md"
BEYOND = 3.0  # standard errors


def measure(i: int, widths: list[int], seeds: int) -> dict[str, Any]:
    """Errors of the networks of row i at each width; where the widest are beyond 3 standard errors, other networks."""
    row, start = rows()[i], time.process_time()
    widths = [max(2, round(n * row.factor)) for n in widths]
    device = f"{jax.devices()[0].device_kind}, JAX {jax.__version__}"
    out = {"name": row.name, "framework": row.framework, "widths": widths, "seeds": seeds, "device": device}
    try:
        check = row.limit().check(row.x, key=jax.random.key(1), widths=widths, seeds=seeds)
        wide = check.rows[-1]
        out |= {"errors": [r.ntk_error for r in check.rows], "slope": check.slope, "ntk": [wide.ntk_z]}
        out["nngp"] = [wide.nngp_z]
        if max(wide.ntk_z, wide.nngp_z) > BEYOND:
            again = row.limit().check(row.x, key=jax.random.key(2), widths=widths[-1:], seeds=seeds).rows[0]
            out["ntk"].append(again.ntk_z)
            out["nngp"].append(again.nngp_z)
    except Exception as error:  # one row that fails must not lose the others
        out["failed"] = f"{type(error).__name__}: {error}"
    return out | {"seconds": time.process_time() - start}


def line(r: dict[str, Any]) -> str:
    if "failed" in r:
        return f"| {r['name']} | {r['framework']} | failed: {r['failed'][:200]} |"
    errors = " ".join(f"{e:.3f}" for e in r["errors"])
    zs = [f"{z[0]:.1f}" + (f" (again: {z[1]:.1f})" if z[1:] else "") for z in (r["ntk"], r["nngp"])]
    widths = " ".join(map(str, r["widths"]))
    return f"| {r['name']} | {r['framework']} | {widths} | {errors} | {r['slope']:.2f} | {zs[0]} | {zs[1]} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=[""], nargs="+", help="rows with one of these in name or framework; no page")
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[64, 128, 256], help="widths, times a row's own factor"
    )
    parser.add_argument("--seeds", type=int, default=32, help="networks a width")
    parser.add_argument("--jobs", type=int, default=1, help="rows at once, a process each")
    parser.add_argument("--json", type=pathlib.Path, help="also write every figure to this file")
    parser.add_argument(
        "--page", type=pathlib.Path, nargs="+", help="only write the page, from such files of other runs"
    )
    options = parser.parse_args()
    if options.page:
        runs = [r for file in options.page for r in json.loads(file.read_text())]
        of = {(r["name"], r["framework"]): r for r in runs}
        PAGE.write_text(page([of[key] for r in rows() if (key := (r.name, r.framework)) in of]))
        return 0
    chosen = [i for i, r in enumerate(rows()) if any(t in f"{r.name} {r.framework}" for t in options.only)]
    found: dict[int, dict] = {}

    def keep(i: int, result: dict[str, Any]) -> None:
        found[i] = result
        print(line(result), f"  {result['seconds']:.0f} CPU-s", flush=True)
        results = [found[i] for i in sorted(found)]
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))
        if options.only == [""]:  # after each row: none is lost
            PAGE.write_text(page(results))

    if options.jobs == 1:
        for i in chosen:
            keep(i, measure(i, options.widths, options.seeds))
        return 0
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(options.jobs, context, max_tasks_per_child=1) as pool:
        tasks = {pool.submit(measure, i, options.widths, options.seeds): i for i in chosen}
        for task in concurrent.futures.as_completed(tasks):
            keep(tasks[task], task.result())
    return 0


def page(results: list[dict]) -> str:
    good = [r for r in results if "failed" not in r]
    slopes = np.array([r["slope"] for r in good])
    within = int(np.sum(np.abs(slopes + 0.5) <= 0.15))
    stays = [r["name"] for r in good if min(map(max, zip(r["ntk"], r["nngp"], strict=True))) > BEYOND]
    devices = "; ".join(sorted({f"{r['device']} ({r['seeds']} networks a width)" for r in results}))
    lines = "\n".join(line(r) for r in results)
    return f"""# Architectures beside finite networks

Written by `scripts/monte_carlo.py`, on {devices}.

Each limit is compared with real networks of the same code, on three inputs: the error of one network's NTK (root mean
square, relative), which falls as width^(-1/2); the slope of its logarithm in that of the width; and the largest
distance of the mean over networks from the limit at the largest width, in standard errors, over all pairs. That mean
also has a bias of order 1/width. The distance is the largest of six numbers, some of which are beyond 3 by chance in a
table of this size: where it is, as many other networks are drawn.

Slopes within 0.15 of -1/2: {within} of {len(good)}. Beyond 3 standard errors twice: {", ".join(stays) or "none"}.
(BatchNorm over a batch is itself an average, for batches of 8 good to 2e-3: see [accuracy](accuracy.md).)

Weights that are not Gaussian (PyTorch and Equinox draw uniform ones, Flax truncated Gaussians) act as Gaussian ones in
wide layers; in the first layer up to the inverse of the number of inputs, so those rows have 64 inputs.

| Architecture | Framework | widths | NTK error | slope | NTK, s.e. | NNGP, s.e. |
| --- |{" --- |" * 6}
{lines}
"""


if __name__ == "__main__":
    sys.exit(main())
