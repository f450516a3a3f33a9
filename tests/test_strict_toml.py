"""TOML that is broken, hostile or too large is refused at once, with the line where there is one."""

import time

import pytest

from volrecon.errors import ConfigError
from volrecon.strict_toml import Counts3, Lengths2, Strict, key_paths, load_toml, validated


class Inner(Strict):
    size: Lengths2
    counts: Counts3 = (1, 1, 1)


class Outer(Strict):
    inner: Inner
    name: str | None = None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beam = \n", r"not TOML: .*line 1"),
        ('a = 1\nbeam = "cone"\nbeam = "fan"\n', r"not TOML: .*line 3"),
        ("[detector]\n[detector]\n", r"not TOML: .*line 2"),
        ("beam = 1" + "0" * 5000, "not TOML"),
        ("a = " + "[" * 10_000, "not TOML"),
        ("a = " + "{b = " * 10_000, "not TOML"),
        ("a" + ".a" * 500_000 + " = 1", "16 dotted parts"),
        ('a = {"b"' + '."b"' * 200_000 + " = 1}", "16 dotted parts"),
        ("#" * 2**20 + "\n", "more than 1048576 bytes"),
    ],
    ids=["syntax", "twice", "table-twice", "digits", "arrays", "tables", "dots", "quoted", "large"],
)
def test_not_toml(tmp_path, text, message):
    path = tmp_path / "a.toml"
    path.write_text(text, encoding="utf-8")
    start = time.monotonic()
    with pytest.raises(ConfigError, match=rf"a\.toml.*{message}"):
        load_toml(path)
    assert time.monotonic() - start < 2


def test_not_text(tmp_path):
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"a\.toml: not TOML"):
        load_toml(tmp_path / "a.toml")


def test_key_paths():
    assert key_paths(Outer) == {"inner", "inner.size", "inner.counts", "name"}


def test_only_containers_are_lax(tmp_path):
    path = tmp_path / "a.toml"
    assert validated(path, Outer, {"inner": {"size": 2}}, ()).inner.size == (2.0, 2.0)
    assert validated(path, Outer, {"inner": {"size": [1, 2.5]}}, ()).inner.size == (1.0, 2.5)
    for size in ("2", True, [1, "2"], [1, 2, 3], [1], [1, -2], [1, float("nan")], -1, 10**400):
        with pytest.raises(ConfigError, match=r"a\.toml: 1 problem\n  inner\.size"):
            validated(path, Outer, {"inner": {"size": size}}, ())
    with pytest.raises(ConfigError, match=r"inner\.counts\.1: should be a valid integer, found 2\.0"):
        validated(path, Outer, {"inner": {"size": 2, "counts": [1, 2.0, 3]}}, ())
