"""Files that are replaced whole, synced in order, and refused with numbers."""

import contextlib
import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volrecon.errors import IntegrityError, ResourceError
from volrecon.store import durable
from volrecon.store.durable import read_sealed, replace_sealed, replace_text, sync_folder, sync_tree, writing

CONTENT = {"b": [1, 2.5], "a": {"name": "ü", "none": None}}


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """What reaches the disk, in order: "fsync NAME", "replace FROM TO"."""
    seen = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        seen.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def noted_replace(source, target, **where):
        seen.append(f"replace {Path(source).name} {Path(target).name}")
        replace(source, target, **where)

    monkeypatch.setattr("os.fsync", noted_fsync)
    monkeypatch.setattr("os.replace", noted_replace)
    return seen


def test_K14_synced_then_renamed_then_the_folder(tmp_path, calls):
    folder = tmp_path / "folder"
    folder.mkdir()
    replace_text(folder / "a.json", "new")
    assert (folder / "a.json").read_text() == "new"
    assert calls == ["fsync .a.json.partial", "replace .a.json.partial a.json", "fsync folder"]
    assert [p.name for p in folder.iterdir()] == ["a.json"]


@pytest.mark.parametrize("fails", ["os.fsync", "os.replace"])
def test_an_error_leaves_the_old_text(tmp_path, monkeypatch, fails):
    def refuse(*arguments, **where):
        raise OSError(errno.ENOSPC, "No space left on device")

    replace_text(tmp_path / "a.json", "old")
    monkeypatch.setattr(fails, refuse)
    with pytest.raises(ResourceError, match=r"a\.json.*No space left.*3 bytes were needed, \d+ are free") as caught:
        replace_text(tmp_path / "a.json", "new")
    assert caught.value.exit_code == 5
    assert (tmp_path / "a.json").read_text() == "old"


def test_what_a_killed_process_left_is_written_over(tmp_path):
    (tmp_path / ".a.json.partial").write_text("half of something longer than the new text")
    replace_text(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_no_folder_to_write_in(tmp_path):
    with pytest.raises(ResourceError, match=r"none/b/a\.json.*free there"):
        replace_text(tmp_path / "none" / "b" / "a.json", "new")


def test_a_tree_is_synced_before_its_folders(tmp_path, calls):
    top = tmp_path / "top"
    (top / "inner").mkdir(parents=True)
    for name in ("x", "inner/y"):
        (top / name).write_text(name)
    sync_tree(top)
    assert calls == ["fsync y", "fsync inner", "fsync x", "fsync top"]


def test_a_folder_that_cannot_be_synced(tmp_path, monkeypatch):
    """Some network file systems refuse it; a broken disk is told."""

    def refusing(number):
        def fsync(descriptor):
            raise OSError(number, os.strerror(number))

        return fsync

    monkeypatch.setattr("os.fsync", refusing(errno.EINVAL))
    sync_folder(tmp_path)
    monkeypatch.setattr("os.fsync", refusing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


def test_only_what_a_file_system_says_is_translated(tmp_path):
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "x", 1):
        raise ZeroDivisionError


def test_a_sealed_table_comes_back_bit_for_bit(tmp_path):
    values = {"third": 1 / 3, "tiny": 5e-324, "big": 2**80, "pair": (1, 2), "nothing": float("nan")}
    replace_sealed(tmp_path / "a.json", values)
    again = read_sealed(tmp_path / "a.json")
    assert again.pop("nothing") != 0
    assert again == {"third": 1 / 3, "tiny": 5e-324, "big": 2**80, "pair": [1, 2]}


@settings(max_examples=50, deadline=None)
@given(where=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_K5_any_flipped_bit_is_noticed(tmp_path_factory, where, bit):
    """Or changes nothing: white space means nothing in JSON."""
    path = tmp_path_factory.getbasetemp() / "flipped.json"
    replace_sealed(path, CONTENT)
    data = bytearray(path.read_bytes())
    data[where % len(data)] ^= 1 << bit
    path.write_bytes(bytes(data))
    with contextlib.suppress(IntegrityError):
        assert read_sealed(path) == CONTENT


def test_K3_cut_at_every_byte(tmp_path):
    path = tmp_path / "cut.json"
    replace_sealed(path, CONTENT)
    whole = path.read_bytes()
    for length in range(len(whole) - 1):  # the last byte is the end of the line
        path.write_bytes(whole[:length])
        with pytest.raises(IntegrityError, match=r"cut\.json is damaged"):
            read_sealed(path)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", '"a"', "[" * 100_000, '{"sha256": 3}', "{}"])
def test_a_sealed_file_that_is_none(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"a\.json is damaged"):
        read_sealed(tmp_path / "a.json")
    with pytest.raises(IntegrityError, match="damaged"):
        read_sealed(tmp_path)


def test_an_edited_number_is_noticed(tmp_path):
    replace_sealed(tmp_path / "a.json", {"block_bytes": 1000})
    table = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**table, "block_bytes": 1001}))
    with pytest.raises(IntegrityError, match="sha256"):
        read_sealed(tmp_path / "a.json")
    assert durable.PARTIAL not in "".join(p.name for p in tmp_path.iterdir())
