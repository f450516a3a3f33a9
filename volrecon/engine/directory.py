"""A run directory: whose it is, what it holds, and what an unfinished run in it was."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from volrecon.errors import ConfigError, IntegrityError, ResourceError, VolreconError
from volrecon.store import open_volume
from volrecon.store.durable import PARTIAL, read_sealed, replace_sealed, replace_text, sync_folder, writing
from volrecon.store.output import check_free
from volrecon.swap import put_back

JOB_FILE = "job.toml"
JOB_MARK = "# volrecon: the resolved job of this run\n"
UNFINISHED = "unfinished.json"
STATE = "state"
LOG, LOCK, VOLUME = "log.jsonl", ".lock", "volume.zarr"
FIRST_FILES = re.compile(r"\.+lock(\.\d+)?|\.(unfinished\.json|job\.toml)\.partial")
"""What a process may leave that was killed before its run began."""


@dataclass(frozen=True)
class RunDirectory:
    """The folder of one run.

    Attributes:
        path: of the folder.
    """

    path: Path

    @classmethod
    def claimed(cls, path: Path) -> RunDirectory:
        """Make a run directory, or take one of ours.

        Raises:
            ConfigError: it is somebody else's.
            ResourceError: it cannot be made or read.
        """
        try:
            if path.exists() and not (path.is_dir() and _ours(path)):
                raise ConfigError(f"{path} exists and is not a run directory of volrecon; choose another --out")
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(f"cannot write into the run directory {path}: {error}") from error
        except ValueError as error:  # a NUL or what is no Unicode in it
            raise ConfigError(f"the run directory {str(path)!r} has a name that no disk takes: {error}") from error
        return cls(path)

    def check_output(self, overwrite: bool, restart: bool) -> bool:
        """Whether the volume that stands here may be replaced: it is asked for, or it is the unfinished run's own.

        Raises:
            ConfigError: there is a finished volume, and neither.
        """
        volume = self.path / VOLUME
        put_back(volume)
        before = None if restart or overwrite else self.unfinished()
        # Between the volume and the end of its run a kill leaves both.
        own = before is not None and _digest(volume) not in (None, before["replaces"])
        check_free(volume, overwrite or own)
        return overwrite or own

    def state_folder(self, scratch: str | None) -> Path:
        """Where the state of a run in this directory lies: inside it, or in a folder of its own in `scratch`."""
        if scratch is None:
            return self.path / STATE
        own = hashlib.sha256(os.fsencode(self.path.resolve())).hexdigest()[:12]
        return Path(scratch) / f"volrecon-{self.path.name}-{own}"

    def unfinished(self) -> dict[str, Any] | None:
        """What is noted of a run that has not finished: `identity` and `how`, as in `begin`, and the volume's digest
        that it `replaces`.

        Raises:
            IntegrityError: the note is damaged.
        """
        path = self.path / UNFINISHED
        if not path.exists():
            return None
        try:
            return read_sealed(path)
        except IntegrityError as error:
            raise IntegrityError(f"{error}; --restart begins the run anew and drops its state") from error

    def begin(self, identity: dict[str, Any], how: dict[str, Any], job: dict[str, Any]) -> None:
        """Note that a run begins, with an empty folder for its state.

        Args:
            identity: what the result depends on, see `check_same`, and the folder that is its `scratch`.
            how: what a resumed run must do alike, such as block sizes and threads.
            job: the resolved job, as TOML tables.
        """
        state = self.state_folder(identity["scratch"])
        with writing(state, 0):
            if state.exists():  # of a run that was killed when its volume was there
                shutil.rmtree(state)
            state.mkdir(parents=True)
            sync_folder(state.parent)
        self.note({"identity": identity, "how": how, "replaces": _digest(self.path / VOLUME)})
        if not (self.path / VOLUME).exists():
            self._write_job(job)

    def note(self, unfinished: dict[str, Any]) -> None:
        """Replace what `unfinished` tells."""
        replace_sealed(self.path / UNFINISHED, unfinished)

    def finish(self, job: dict[str, Any]) -> None:
        """Note that the volume is there."""
        self._write_job(job)
        for left in self.path.glob(f".*{PARTIAL}"):
            left.unlink()
        (self.path / UNFINISHED).unlink(missing_ok=True)

    def forget(self) -> None:
        """Drop an unfinished run and its state; a finished volume stays."""
        try:
            before = self.unfinished()
        except IntegrityError:
            before = None  # it is not known where its state is; what is in the usual place goes
        for scratch in {None, before["identity"]["scratch"] if before else None}:
            shutil.rmtree(self.state_folder(scratch), ignore_errors=True)
        (self.path / UNFINISHED).unlink(missing_ok=True)

    def _write_job(self, job: dict[str, Any]) -> None:
        replace_text(self.path / JOB_FILE, JOB_MARK + tomli_w.dumps(job))


def check_same(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with another job than the one that was begun.

    Raises:
        ConfigError: names every difference with both values.
    """
    as_noted = json.loads(json.dumps(now))  # tuples are lists there
    different = [
        f"{name}: was {before_value!r:.120}, is {now_value!r:.120}"
        for name, before_value, now_value in _differences(before, as_noted, "")
    ]
    if different:
        raise ConfigError(
            "an unfinished run lies here, of another job:\n  "
            + "\n  ".join(different)
            + "\nGive the same job again to go on, or --restart to drop what was computed."
        )


def _differences(a: Any, b: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from _differences(a.get(key), b.get(key), f"{name}.{key}" if name else key)
    elif a != b:
        yield name, a, b


def _ours(path: Path) -> bool:
    if (path / UNFINISHED).is_file():
        return True
    job = path / JOB_FILE
    if job.is_file() and job.read_text(encoding="utf-8", errors="replace").startswith(JOB_MARK):
        return True
    rest = [inside for inside in path.iterdir() if not FIRST_FILES.fullmatch(inside.name)]
    return all(inside.name == STATE and inside.is_dir() and not any(inside.iterdir()) for inside in rest)


def _digest(volume: Path) -> str | None:
    """What a volume says of its values; None where there is none, or it cannot be read."""
    try:
        return open_volume(volume).digest
    except VolreconError:
        return None
