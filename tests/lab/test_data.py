"""Data: what is read, and how what cannot be used is refused."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from widelimit.lab import DataError, load_data
from widelimit.lab._task import HELD_OUT, TRAINING, make_task


def _csv(path, rows, head="a,b,y"):
    path.write_text("\n".join([head, *rows]) + "\n")
    return str(path)


def _rows(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return [f"{a:.6f},{b:.6f},{k % 3}" for k, (a, b) in enumerate(rng.standard_normal((n, 2)))]


def test_digits():
    data = load_data("digits")
    assert data.X.shape == (1797, 64)
    assert data.Y.shape == (1797, 10)
    assert np.allclose((data.X**2).sum(1), 64)
    assert np.allclose(data.Y.sum(1), 0)
    assert data.kind == "classes"


def test_csv_classes_and_regression(tmp_path):
    data = load_data(_csv(tmp_path / "t.csv", _rows()), "y")
    assert data.classes == ("0", "1", "2")
    assert data.X.shape == (40, 3)  # two columns and the constant one
    data = load_data(_csv(tmp_path / "t.csv", _rows()), "a")
    assert data.kind == "regression"
    assert data.Y.std() == pytest.approx(1)


@pytest.mark.parametrize(
    ("rows", "target", "says"),
    [
        (_rows(), "z", "no column 'z'; its columns are a, b, y"),
        (_rows(), None, "name the column to predict with --target"),
        ([*_rows(), "nan,1,2"], "y", "not finite, the first (nan) in row 41, column 'a'"),
        ([*_rows(), "1,inf,2"], "y", "row 41, column 'b'"),
        ([*_rows(), "1,2,nan"], "y", "the target is nan in row 41"),
        ([*_rows(), "1,hello,2"], "y", "'hello' is not a number"),
        ([*_rows(), "1,2"], "y", "2 values where 3 columns are named"),
        ([r.rsplit(",", 1)[0] + ",5" for r in _rows()], "y", "the target is constant (5.0)"),
        (_rows(10), "y", "10 rows are too few"),
    ],
)
def test_csv_refused(tmp_path, rows, target, says):
    with pytest.raises(DataError) as error:
        load_data(_csv(tmp_path / "t.csv", rows), target)
    assert says in str(error.value)


def test_no_such_file():
    with pytest.raises(DataError, match=r"no such file or directory: 'nowhere\.csv'"):
        load_data("nowhere.csv")


def test_npz(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", X=rng.standard_normal((50, 5)), y=np.arange(50) % 2)
    assert load_data(str(tmp_path / "d.npz")).classes == ("0", "1")
    np.savez(tmp_path / "e.npz", X=rng.standard_normal((50, 5)))
    with pytest.raises(DataError, match="no array named y"):
        load_data(str(tmp_path / "e.npz"))
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="cannot read"):
        load_data(str(tmp_path / "broken.npz"))


def test_idx_directory(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (60, 4, 4), np.uint8), (np.arange(60) % 4).astype(np.uint8)

    def idx(array):
        return b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()

    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(idx(images))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    data = load_data(str(tmp_path))
    assert data.X.shape == (60, 16)
    assert data.classes == ("0", "1", "2", "3")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels)[:-5])
    with pytest.raises(DataError, match="is cut off: 55 bytes where 60"):
        load_data(str(tmp_path))


def test_task_is_balanced_and_without_parallel_rows():
    task = make_task(load_data("digits"), 3)
    assert task.n == TRAINING
    assert len(task.y_test) == HELD_OUT
    assert task.y.sum() == 0
    assert np.all(np.diff(task.y) >= 0)  # sorted by class
    unit = task.X[: task.test.stop] / 8.0
    cosines = np.abs(unit @ unit.T)
    assert np.max(cosines - np.eye(len(unit))) < 0.995
    # The path lies on the sphere and goes through two training points.
    path = task.X[task.path]
    assert np.allclose((path**2).sum(1), 64)
    for angle, point in zip(task.marks, (task.X[0], task.X[task.n - 1]), strict=True):
        k = np.argmin(np.abs(task.angle - angle))
        step = task.angle[1] - task.angle[0]
        assert np.linalg.norm(path[k] - point) <= 8.0 * step


def test_duplicated_rows_are_used_once(tmp_path):
    rows = _rows(12) * 10
    with pytest.raises(DataError, match="point in different directions"):
        make_task(load_data(_csv(tmp_path / "t.csv", rows[:5] * 10), "y"), 0)
