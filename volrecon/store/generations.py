"""Generations of a run's state: what `kill -9` at any moment leaves, and the next process goes on from.

A generation is a manifest, `generation-000012.json`, that names arrays of a `ZarrSpace` and says which of their
slices count. Arrays are synced first, then the manifest appears by one rename; only then do older generations and
arrays go. Volumes of the run that live in the same space ARE the checkpoint; others are copied into it.
"""

import re
import shutil
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volrecon.errors import IntegrityError, StorageWarning
from volrecon.store.durable import PARTIAL, read_sealed, replace_sealed, sync_file, sync_folder, writing
from volrecon.store.scratch import ZarrSpace, ZarrVolume
from volrecon.volume import Space, Volume, chunk_height, slice_bytes

FORMAT_VERSION = 1
MANIFEST = re.compile(r"generation-(\d{6,})\.json")


@dataclass(frozen=True)
class Generation:
    """A committed state.

    Attributes:
        step: steps done.
        volumes: by name.
        filled: slices [0, n) of each that count; the rest is not written yet.
        scalars: by name.
        about: what the caller keeps beside the state, such as the job it belongs to.
    """

    step: int
    volumes: Mapping[str, Volume]
    filled: Mapping[str, int]
    scalars: Mapping[str, float]
    about: dict[str, Any]


class Generations:
    """The generations in the folder of a space.

    Args:
        keep: how many to keep. With two, a damaged newest one costs some steps; with one, the run.
    """

    def __init__(self, space: ZarrSpace, keep: int) -> None:
        self.space, self.keep = space, keep
        self._kept: list[tuple[Path, list[ZarrVolume]]] = []
        # Weakly: a volume that the run is done with must not stay in memory until the next commit.
        self._copies: weakref.WeakKeyDictionary[Volume, tuple[ZarrVolume, int]] = weakref.WeakKeyDictionary()

    def latest(self, space: Space) -> Generation | None:
        """The newest generation whose every chunk is whole, its volumes in `space`; None where none was ever committed.

        What belongs to no generation is removed.

        Raises:
            IntegrityError: there are generations, and all are damaged.
        """
        faults = []
        for path in self._manifests():
            try:
                generation = self._restored(path, space)
            except IntegrityError as error:
                faults.append(str(error))
                continue
            for fault in faults:
                warnings.warn(f"{fault}; going on from step {generation.step}", StorageWarning, stacklevel=2)
            self._remove_the_rest()
            return generation
        if faults:
            raise IntegrityError("; ".join(faults) + ". No older state is left; --restart computes it anew.")
        self._remove_the_rest()
        return None

    def commit(self, state: Generation) -> None:
        """Make a state the newest generation. Of a volume that was committed before, only slices may have been added,
        from a chunk's first slice on.

        Raises:
            ResourceError: the disk is full or refuses; the generation before stands.
        """
        stored = {name: self._stored(volume, state.filled[name]) for name, volume in state.volumes.items()}
        self.space.flush()
        for volume in stored.values():
            _sync(volume)
        with writing(self.space.folder, 0):
            sync_folder(self.space.folder)
        for volume in stored.values():
            volume.pin()  # before the manifest names it: what is named must stay, whatever happens next
        path = self.space.folder / f"generation-{state.step:06d}.json"
        replace_sealed(path, _document(state, stored))
        generations = [*(old for old in self._kept if old[0] != path), (path, list(stored.values()))]
        self._kept = generations[-self.keep :]
        wanted = {id(volume) for _, volumes in self._kept for volume in volumes}
        for manifest, volumes in generations[: -self.keep]:
            manifest.unlink(missing_ok=True)
            for volume in volumes:
                if id(volume) not in wanted:
                    volume.unpin()

    def clear(self) -> None:
        """Remove everything: the run is over, or begins anew."""
        for path in self._manifests():
            path.unlink()
        self._kept = []
        self._remove_the_rest()

    def _stored(self, volume: Volume, filled: int) -> ZarrVolume:
        """The array of a volume in the space; of one that was copied before only what it gained since is copied."""
        if isinstance(volume, ZarrVolume) and volume.space is self.space:
            return volume
        copy, done = self._copies.get(volume) or (self.space.empty(volume.shape), 0)
        for start, stop in self.space.blocks(volume.shape):
            first, last = max(start, done), min(stop, filled)
            if first < last:
                copy.write(first, volume.read(first, last))
        self._copies[volume] = copy, filled
        return copy

    def _restored(self, path: Path, space: Space) -> Generation:
        document = _opened(path)
        volumes: dict[str, Volume] = {}
        filled: dict[str, int] = {}
        arrays = []
        for name, entry in document["volumes"].items():
            array = self.space.open(entry["array"], tuple(entry["shape"]))
            arrays.append(array)
            filled[name] = entry["filled"]
            try:
                volumes[name] = self._volume(array, filled[name], space)
            except IntegrityError as error:
                raise IntegrityError(f"the committed state of step {document['step']} is damaged: {error}") from error
        self._kept = [(path, arrays)]
        return Generation(document["step"], volumes, filled, document["scalars"], document["about"])

    def _volume(self, array: ZarrVolume, filled: int, space: Space) -> Volume:
        """A committed array, every chunk checked, as a volume of a space: itself, where it lives there already."""
        volume = array if space is self.space else space.empty(array.shape)
        for start, stop in space.blocks(array.shape):
            if start < filled:
                block = array.read(start, min(stop, filled))
                if volume is not array:
                    volume.write(start, block)
        if volume is not array:
            self._copies[volume] = array, filled
        return volume

    def _manifests(self) -> list[Path]:
        """Newest first."""
        found = {path: MANIFEST.fullmatch(path.name) for path in self.space.folder.iterdir()}
        steps = {path: int(match[1]) for path, match in found.items() if match}
        return sorted(steps, key=steps.__getitem__, reverse=True)

    def _remove_the_rest(self) -> None:
        """Remove what belongs to no kept generation: of damaged ones, and of steps that were never finished."""
        wanted = {path for path, _ in self._kept}
        wanted |= {volume.folder for _, volumes in self._kept for volume in volumes}
        for path in self.space.folder.iterdir():
            if path in wanted:
                continue
            if MANIFEST.fullmatch(path.name) or path.name.endswith(PARTIAL):
                path.unlink(missing_ok=True)
            elif ZarrSpace.owns(path):
                shutil.rmtree(path, ignore_errors=True)


def _opened(path: Path) -> dict[str, Any]:
    """A manifest, refused where its seal is broken."""
    document = read_sealed(path)
    if document.get("format_version") != FORMAT_VERSION:
        found = document.get("format_version")
        raise IntegrityError(f"{path} is of format {found}; this volrecon reads {FORMAT_VERSION}")
    return document


def _document(state: Generation, stored: Mapping[str, ZarrVolume]) -> dict[str, Any]:
    volumes = {
        name: {"array": volume.folder.name, "shape": list(volume.shape), "filled": state.filled[name]}
        for name, volume in stored.items()
    }
    return {
        "format_version": FORMAT_VERSION,
        "step": state.step,
        "volumes": volumes,
        "scalars": dict(state.scalars),
        "about": state.about,
    }


def _sync(volume: ZarrVolume) -> None:
    """Have the disk keep what was written to an array, and the names of its files."""
    if not volume.unsynced:
        return
    files = sorted(volume.unsynced)
    with writing(volume.folder, len(files) * chunk_height(volume.shape) * slice_bytes(volume.shape)):
        for path in [*files, *volume.folder.rglob("zarr.json")]:
            sync_file(path)
        for folder in (volume.folder / "data", volume.folder):
            sync_folder(folder)
    volume.unsynced.clear()
