"""``MODEL.py:net`` and files of checkpoints, read from disk."""

from __future__ import annotations

import importlib.util
import pathlib
import sys
import traceback
import types
from typing import Any

from widelimit.cli._exit import InputError

__all__ = ["check_files", "load_model", "read_checkpoint", "split_name"]

_KINDS = (".npz", ".pt", ".pth")


def split_name(name: str) -> tuple[pathlib.Path, str]:
    """Path and attribute of ``MODEL.py:net``; InputError for another form or a file that is not there."""
    path, colon, attribute = name.rpartition(":")
    if not colon or not attribute.isidentifier() or not path.endswith(".py"):
        raise InputError(f"{name!r} must be FILE.py:NAME, a Python file and the name of a model in it.")
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"no such file: {path!r} (of {name!r}).")
    return file, attribute


def load_model(file: pathlib.Path, attribute: str) -> Any:
    """Run the file, with its folder on the path for its own imports, and return what has the name."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(file.stem, module)
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        lines = [
            f.lineno
            for f in traceback.extract_tb(error.__traceback__)
            if pathlib.Path(f.filename).resolve() == file.resolve()
        ]
        where = f", line {lines[-1]}" if lines else ""
        raise InputError(f"{str(file)!r}{where} failed: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        named = [n for n, v in vars(module).items() if not n.startswith("_") and not isinstance(v, types.ModuleType)]
        there = ", ".join(named[:12]) or "no names"
        raise InputError(f"{str(file)!r} has no {attribute!r}; it has {there}.")
    return getattr(module, attribute)


def check_files(names: list[str]) -> list[pathlib.Path]:
    """Paths of checkpoints that are there and of a kind that is known."""
    files = [pathlib.Path(name).expanduser() for name in names]
    for file in files:
        if not file.is_file():
            raise InputError(f"--checkpoints: no such file: {str(file)!r}.")
        if file.suffix not in _KINDS:
            raise InputError(f"--checkpoints: {str(file)!r} must end in {', '.join(_KINDS)}.")
    return files


def read_checkpoint(file: pathlib.Path) -> dict[str, Any]:
    """Arrays or tensors by name: of a .npz, or a state_dict (also one under "state_dict" or "model")."""
    try:
        if file.suffix == ".npz":
            import numpy as np

            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        import torch

        found = torch.load(file, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise InputError(f'{str(file)!r} needs PyTorch: pip install "widelimit[torch]".') from error
    except Exception as error:
        raise InputError(f"--checkpoints: cannot read {str(file)!r}: {error}") from error
    for name in ("state_dict", "model", "model_state_dict"):
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict):
        raise InputError(f"--checkpoints: {str(file)!r} holds a {type(found).__name__}, not a state_dict.")
    return found
