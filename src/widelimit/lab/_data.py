"""Data for the lab: read, checked, and put on the sphere |x|^2 = d."""

from __future__ import annotations

import csv
import gzip
import hashlib
import pathlib
from typing import NamedTuple

import numpy as np

from widelimit.lab._errors import DataError

LEAST_ROWS = 24
MOST_CLASSES = 50


class Dataset(NamedTuple):
    """Inputs and targets ready for a kernel.

    X (n, d): for images every pixel minus its mean; for tables every column standardised and a constant
    column of ones appended (so that the length of a row is not lost); then every row scaled to |x|^2 = d.  Y
    (n, o): one-hot minus 1/o for classes, standardised for regression (o = 1).  labels (n,): class indices,
    or None.
    """

    X: np.ndarray
    Y: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...] | None
    name: str
    description: str
    normalisation: str
    sha256: str

    @property
    def kind(self) -> str:
        return "regression" if self.classes is None else "classes"

    @property
    def n(self) -> int:
        return self.X.shape[0]

    @property
    def d(self) -> int:
        return self.X.shape[1]


def load_data(name: str, target: str | None = None) -> Dataset:
    """Read "digits", a directory of MNIST-style idx files, a .npz file or a .csv file; raises DataError."""
    if name == "digits":
        from sklearn.datasets import load_digits

        X, labels = load_digits(return_X_y=True)
        return _dataset(X, labels, "digits", "handwritten digits of scikit-learn, 8 x 8 pixels", images=True)
    path = pathlib.Path(name).expanduser()
    if not path.exists():
        raise DataError(
            f"no such file or directory: {name!r}. data is 'digits', a directory of idx files, a .npz or a .csv file."
        )
    if path.is_dir():
        return _idx(path)
    if path.suffix == ".npz":
        return _npz(path, target)
    if path.suffix in (".csv", ".tsv", ".txt"):
        return _csv(path, target)
    raise DataError(f"{name!r}: unknown kind of file {path.suffix!r}; give a .npz, a .csv or a directory of idx files.")


# ---------------------------------------------------------------------------------------------- readers


def _idx_array(path: pathlib.Path) -> np.ndarray:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            raw = file.read()
    except (OSError, EOFError) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}") from error
    if len(raw) < 4 or raw[:2] != b"\x00\x00" or raw[2] != 8:
        raise DataError(f"{str(path)!r} is not an idx file of unsigned bytes (its magic number is wrong).")
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, 4)
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    if values.size != int(np.prod(shape)):
        raise DataError(f"{str(path)!r} is cut off: {values.size} bytes where {int(np.prod(shape))} are promised.")
    return values.reshape(shape)


def _idx(path: pathlib.Path) -> Dataset:
    found = {}
    for part in ("train-images", "train-labels"):
        names = sorted(p for p in path.iterdir() if p.name.startswith(part) and "idx" in p.name)
        if not names:
            raise DataError(
                f"{str(path)!r} has no file {part}-idx…-ubyte (or .gz): a directory must hold the "
                f"MNIST-style idx files "
                "train-images-idx3-ubyte and train-labels-idx1-ubyte."
            )
        found[part] = _idx_array(names[0])
    images, labels = found["train-images"], found["train-labels"]
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(f"{str(path)!r}: images {images.shape} and labels {labels.shape} do not belong together.")
    images, labels = images[:5000], labels[:5000]  # more than any experiment here uses
    size = f"{images.shape[1]} x {images.shape[2]}"
    X = images.reshape(len(images), -1).astype(np.float64)
    return _dataset(X, labels, path.name, f"{path.name}: first {len(X)} images of {size} pixels", images=True)


def _npz(path: pathlib.Path, target: str | None) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {k: file[k] for k in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read {str(path)!r} as .npz: {error}") from error
    x_name = next((k for k in ("X", "x", "x_train", "data", "images") if k in arrays), None)
    y_names = (target,) if target else ("y", "Y", "y_train", "target", "targets", "labels")
    y_name = next((k for k in y_names if k in arrays), None)
    there = ", ".join(arrays) or "nothing"
    if x_name is None:
        raise DataError(f"{str(path)!r} holds {there}; the inputs must be an array named X.")
    if y_name is None:
        wanted = f"no array named {target!r}" if target else "no array named y; name the target with --target"
        raise DataError(f"{str(path)!r} holds {there}: {wanted}.")
    X, y = arrays[x_name], arrays[y_name]
    if X.ndim < 2 or y.shape not in ((X.shape[0],), (X.shape[0], 1)):
        raise DataError(
            f"{str(path)!r}: {x_name} {X.shape} must be (rows, …) and {y_name} {y.shape} one value for each row."
        )
    if X.dtype.kind not in "biuf":
        raise DataError(f"{str(path)!r}: {x_name} has dtype {X.dtype}, which is not numeric.")
    X = X.reshape(len(X), -1).astype(np.float64)
    return _dataset(X, y.reshape(-1), path.stem, f"{path.name}: {len(X)} rows", images=X.shape[1] > 256)


def _csv(path: pathlib.Path, target: str | None) -> Dataset:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {str(path)!r} as text: {error}") from error
    head = text.splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=head.count)
    rows = [r for r in csv.reader(text.splitlines(), delimiter=delimiter) if any(c.strip() for c in r)]
    if len(rows) < 2 or len(rows[0]) < 2:
        raise DataError(f"{str(path)!r} needs a line of column names, at least two columns, and rows of data.")
    names = [c.strip() for c in rows[0]]
    if target is None:
        raise DataError(f"name the column to predict with --target; {str(path)!r} has {', '.join(names)}.")
    if names.count(target) != 1:
        problem = "no column" if target not in names else "more than one column"
        raise DataError(f"{str(path)!r} has {problem} {target!r}; its columns are {', '.join(names)}.")
    column = names.index(target)
    X = np.empty((len(rows) - 1, len(names) - 1))
    y = []
    for i, row in enumerate(rows[1:]):
        if len(row) != len(names):
            raise DataError(f"{str(path)!r}, line {i + 2}: {len(row)} values where {len(names)} columns are named.")
        y.append(row[column].strip())
        others = [(j, v) for j, v in enumerate(row) if j != column]
        for k, (j, value) in enumerate(others):
            try:
                X[i, k] = float(value)
            except ValueError:
                raise DataError(
                    f"{str(path)!r}, line {i + 2}, column {names[j]!r}: {value.strip()!r} is not a number; "
                    "encode or drop the columns that are not numeric."
                ) from None
    feature_names = [c for c in names if c != target]
    return _dataset(
        X,
        np.array(y),
        path.stem,
        f"{path.name}: {len(X)} rows, target {target}",
        images=False,
        names=feature_names,
    )


# ---------------------------------------------------------------------------------------------- checks


def _target(y: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...] | None]:
    """Y, class indices, class names; numbers with few distinct integer values count as classes."""
    if y.dtype.kind in "US":
        try:
            values = np.array([float(v) for v in y])
        except ValueError:
            values = None
            if np.any(y == ""):
                row = int(np.argmax(y == "")) + 1
                raise DataError(f"{where}: the target is empty in row {row}.") from None
    elif y.dtype.kind in "biuf":
        values = y.astype(np.float64)
    else:
        raise DataError(f"{where}: the target has dtype {y.dtype}; it must be numbers or class names.")
    if values is not None and not np.isfinite(values).all():
        row = int(np.argmax(~np.isfinite(values))) + 1
        raise DataError(f"{where}: the target is {values[row - 1]} in row {row}; drop or fill that row.")
    distinct, index = np.unique(y if values is None else values, return_inverse=True)
    if len(distinct) < 2:
        raise DataError(f"{where}: the target is constant ({distinct[0]}); there is nothing to learn.")
    whole = values is None or bool(np.all(distinct == np.round(distinct)))
    few = len(distinct) <= min(MOST_CLASSES, max(2, len(y) // 8))
    if whole and few:
        names = tuple(str(v) if values is None else str(int(v)) for v in distinct)
        return np.eye(len(distinct))[index] - 1.0 / len(distinct), index, names
    if values is None:
        raise DataError(
            f"{where}: the target is text with {len(distinct)} distinct values in {len(y)} rows: too many for classes."
        )
    return ((values - values.mean()) / values.std())[:, None], None, None


def _dataset(
    X: np.ndarray, y: np.ndarray, name: str, description: str, *, images: bool, names: list[str] | None = None
) -> Dataset:
    where = f"data {name!r}"
    X = np.asarray(X, np.float64)
    bad = ~np.isfinite(X)
    if bad.any():
        i, j = np.argwhere(bad)[0]
        column = f"column {names[j]!r}" if names else f"column {j + 1}"
        raise DataError(
            f"{where}: {bad.sum()} value(s) are not finite, the first ({X[i, j]}) in row {i + 1}, {column}; "
            "drop or fill them."
        )
    if len(X) < LEAST_ROWS:
        raise DataError(f"{where}: {len(X)} rows are too few; the lab needs at least {LEAST_ROWS}.")
    Y, labels, classes = _target(np.asarray(y), where)
    sha = hashlib.sha256(np.ascontiguousarray(X).tobytes() + np.ascontiguousarray(Y).tobytes()).hexdigest()
    X = X - X.mean(0)
    if images:
        how = "each pixel minus its mean, then each image scaled to |x|^2 = d"
    else:
        spread = X.std(0)
        if not spread.any():
            raise DataError(f"{where}: every input column is constant.")
        X = np.concatenate([X / np.where(spread > 0, spread, 1.0), np.ones((len(X), 1))], axis=1)
        how = "each column standardised, a column of ones appended, then each row scaled to |x|^2 = d"
    norm = np.linalg.norm(X, axis=1, keepdims=True)
    if (norm == 0).any():
        raise DataError(f"{where}: row {int(np.argmax(norm == 0)) + 1} equals the mean of all rows; drop it.")
    return Dataset(X * (X.shape[1] ** 0.5 / norm), Y, labels, classes, name, description, how, sha)
