"""`import widelimit` costs little more than `import jax`, which it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The processor time of the process itself, so that other work on the machine does not count.
MEASURE = "import time; start = time.process_time(); {}; print(time.process_time() - start)"
# rooms are loaded when their names are first used, so all of them are asked for
ALL = "import widelimit; [getattr(widelimit, name) for name in widelimit.__all__]"


def seconds(code: str) -> float:
    run = subprocess.run([sys.executable, "-c", MEASURE.format(code)], capture_output=True, text=True, check=True)
    return float(run.stdout)


def test_importing_widelimit_takes_less_than_one_and_a_half_times_importing_jax():
    for code in ("import jax", ALL):  # byte code is compiled and the disk is warm before anything counts
        seconds(code)
    best_jax = best_ours = float("inf")
    for _ in range(8):
        best_jax = min(best_jax, seconds("import jax"))
        best_ours = min(best_ours, seconds(ALL))
        if best_ours < 1.5 * best_jax:
            return
    pytest.fail(f"import widelimit takes {best_ours:.2f} s, import jax {best_jax:.2f} s")


@pytest.mark.parametrize(
    "module", ["torch", "flax", "equinox", "lineax", "matfree", "matplotlib", "sklearn", "widelimit.report"]
)
def test_importing_widelimit_does_not_import(module):
    code = f"import sys; {ALL}; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
