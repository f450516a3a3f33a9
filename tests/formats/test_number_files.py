"""Vectors and angles in text files and .npy."""

import numpy as np
import pytest

from volrecon.errors import DataError
from volrecon.formats import read_vectors, write_vectors
from volrecon.formats.number_files import read_angles

VECTORS = np.random.default_rng(2).normal(size=(5, 12)) * 10.0 ** np.arange(-6, 6)


@pytest.mark.parametrize("name", ["v.txt", "v.vec", "v.npy"])
def test_round_trip_is_exact(tmp_path, name):
    write_vectors(tmp_path / name, VECTORS)
    np.testing.assert_array_equal(read_vectors(tmp_path / name), VECTORS)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_commas_blanks_and_comments(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("# a comment\n\n1,2,3, 4 5\t6 7 8 9 10 11 12 # first\r\n" + " ".join(["0"] * 12))
    np.testing.assert_array_equal(read_vectors(path)[0], np.arange(1, 13))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no numbers"),
        ("1 2 3", r"shape \(1, 3\); expected 12 numbers"),
        ("1 " * 13, "radius of a curved detector"),
        ("1 " * 12 + "\n" + "1 " * 11, "line 2 has 11 numbers, the lines before it 12"),
        ("1 " * 11 + "one", "line 1: could not convert string to float: 'one'"),
        ("1 " * 11 + "nan", r"1 numbers are not finite, the first at \[0, 11\]"),
    ],
)
def test_bad_text(tmp_path, text, message):
    path = tmp_path / "v.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_vectors(path)
    assert str(path) in str(caught.value)


def test_bad_files(tmp_path):
    np.save(tmp_path / "v.npy", np.ones((4, 13)))
    with pytest.raises(DataError, match="curved detector"):
        read_vectors(tmp_path / "v.npy")
    (tmp_path / "v.txt").write_bytes(b"\xff\xfe\x00\x80" * 9)
    with pytest.raises(DataError, match="UnicodeDecodeError"):
        read_vectors(tmp_path / "v.txt")
    with pytest.raises(DataError, match="no such file"):
        read_vectors(tmp_path / "none.txt")
    with pytest.raises(DataError, match=r"shape \(3, 11\)"):
        write_vectors(tmp_path / "w.txt", np.ones((3, 11)))


def test_angles(tmp_path):
    path = tmp_path / "angles.txt"
    path.write_text("0\n0.5 # degrees\n\n1e0\n")
    np.testing.assert_array_equal(read_angles(path), [0, 0.5, 1])
    path.write_text("0, 1\n")
    with pytest.raises(DataError, match="one angle a line"):
        read_angles(path)
