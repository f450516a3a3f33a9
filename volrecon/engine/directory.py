"""A run directory: whose it is, what it holds, and what an unfinished run in it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from volrecon.errors import ConfigError, IntegrityError, ResourceError
from volrecon.store.durable import replace_json, replace_text

JOB_FILE = "job.toml"
JOB_MARK = "# volrecon: the resolved job of this run\n"
UNFINISHED = "unfinished.json"
LOG, LOCK, VOLUME = "log.jsonl", ".lock", "volume.zarr"


@dataclass(frozen=True)
class RunDirectory:
    """The folder of one run.

    Attributes:
        path: of the folder.
    """

    path: Path

    @classmethod
    def claimed(cls, path: Path, overwrite: bool) -> RunDirectory:
        """Make a run directory, or take one of ours that has no finished volume.

        Raises:
            ConfigError: it is somebody else's, or holds a finished volume and `overwrite` is not given.
            ResourceError: it cannot be written into.
        """
        if "\0" in str(path):
            raise ConfigError("the run directory's name contains a NUL character")
        if path.exists():
            if not path.is_dir() or (any(path.iterdir()) and not _ours(path)):
                raise ConfigError(f"{path} exists and is not a run directory of volrecon; choose another --out")
            if (path / VOLUME).exists() and not overwrite:
                raise ConfigError(
                    f"{path} holds a finished volume; pass --overwrite to replace it, or choose another --out"
                )
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ResourceError(f"cannot write into the run directory {path}: {error}") from error
        return cls(path)

    def state_folder(self, scratch: str | None) -> Path:
        """Where the state of a run in this directory lies: inside it, or in a folder of its own in `scratch`."""
        if scratch is None:
            return self.path / "state"
        own = hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:12]
        return Path(scratch) / f"volrecon-{self.path.name}-{own}"

    def unfinished(self) -> dict[str, Any] | None:
        """What `begin` wrote of a run that has not finished."""
        path = self.path / UNFINISHED
        if not path.exists():
            return None
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return {key: content[key] for key in ("identity", "how", "state")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"{path} is damaged ({error!r}); --restart begins the run anew and drops its state"
            ) from error

    def begin(self, identity: dict[str, Any], how: dict[str, Any], state: Path, job: dict[str, Any]) -> None:
        """Note that a run begins.

        Args:
            identity: what the result depends on; see `check_same`.
            how: what a resumed run must do alike, such as block sizes and threads.
            state: folder of the state.
            job: the resolved job, as TOML tables.
        """
        replace_json(self.path / UNFINISHED, {"identity": identity, "how": how, "state": str(state)})
        if not (self.path / VOLUME).exists():
            self._write_job(job)

    def finish(self, job: dict[str, Any]) -> None:
        """Note that the volume is there."""
        self._write_job(job)
        (self.path / UNFINISHED).unlink(missing_ok=True)

    def forget(self) -> None:
        """Drop an unfinished run and its state; a finished volume stays."""
        path = self.path / UNFINISHED
        try:
            state = Path(json.loads(path.read_text(encoding="utf-8"))["state"])
            if state.name == "state" or state.name.startswith("volrecon-"):
                shutil.rmtree(state, ignore_errors=True)
        except (OSError, ValueError, KeyError, TypeError):
            pass  # it is not known where; what is in the usual place goes
        shutil.rmtree(self.path / "state", ignore_errors=True)
        path.unlink(missing_ok=True)

    def _write_job(self, job: dict[str, Any]) -> None:
        replace_text(self.path / JOB_FILE, JOB_MARK + tomli_w.dumps(job))


def check_same(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with another job than the one that was begun.

    Raises:
        ConfigError: names every difference with both values.
    """
    different = [
        f"{name}: was {before_value!r:.120}, is {now_value!r:.120}"
        for name, before_value, now_value in _differences(before, now, "")
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
    return job.is_file() and job.read_text(encoding="utf-8", errors="replace").startswith(JOB_MARK)
