"""From a checked job to its volume: planned, locked, committed on the way, resumed."""

from __future__ import annotations

import json
import platform
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
import zarr

from volrecon.engine.beside import beside
from volrecon.engine.checking import Checked, warn_of_losses
from volrecon.engine.directory import LOCK, LOG, VOLUME, RunDirectory, check_same
from volrecon.engine.keeping import GRACE, Committer
from volrecon.engine.planning import measure, planned
from volrecon.engine.solving import Callback, Progress, solve
from volrecon.errors import IntegrityError, ResourceError, StorageWarning
from volrecon.geometry import VolumeGeometry, coverage, suggest_grid
from volrecon.jobs import resolve_method
from volrecon.memory import give_back_freed, parsed_size, peak_resident, shown_size
from volrecon.plan import KEPT, Plan, Tier
from volrecon.solvers import Info, Measurement
from volrecon.stopping import told_to_stop
from volrecon.store import Generations, Scan, ZarrSpace, locked, open_scan, temporary_space, write_volume
from volrecon.store.durable import writing
from volrecon.volume import RamSpace, Space

Log = Callable[..., None]


def run(
    checked: Checked,
    callback: Callback | None = None,
    overwrite: bool = False,
    restart: bool = False,
    max_seconds: float | None = None,
) -> Info:
    """Reconstruct, and leave `volume.zarr`, the resolved job and a log in the run directory; what the last step told.

    A run that was killed goes on from its last commit; on one machine its volume is that of an undisturbed run, byte
    for byte.

    Args:
        overwrite: replace a finished volume, which stays until the new one is there.
        restart: drop what an unfinished run of another job computed.
        max_seconds: end with a commit before this much time has passed.

    Raises:
        VolreconError: the run directory is not ours, complete, in use, or of another job; memory or disk is missing;
            the numbers diverge; it was told to stop (StoppedError).
    """
    begun = time.monotonic()
    give_back_freed()
    place = RunDirectory.claimed(checked.out)
    with locked(place.path / LOCK), told_to_stop(GRACE) as told:
        overwrite = place.check_output(overwrite, restart)
        if restart:
            place.forget()
        how, state = _how(checked, place)
        warn_of_losses(checked.coverage, checked.scan)
        _set_threads(how["threads"])
        with _logging(place.path / LOG) as log, _space(how, state) as (space, disk):
            log(event="start", host=platform.machine(), **how)
            generations = Generations(disk, KEPT[how["tier"]])
            deadline = None if max_seconds is None else begun + max_seconds
            keeper = Committer(generations, space, told, checked.job.compute.commit_seconds, deadline, log)

            def logged(progress: Progress) -> None:
                told_now = {name: getattr(progress.info, name) for name in ("residual", "change", "sigma")}
                log(event="step", step=progress.step, seconds=round(progress.seconds, 3), **told_now)
                if callback:
                    callback(progress)

            x, info = solve(checked.method, measure(checked, space), logged, keeper)
            unit = checked.unit_per_mm
            write_volume(place.path / VOLUME, x, checked.grid, _attributes(checked), unit, overwrite)
            place.finish(checked.toml)
            del x, keeper
            generations.clear()
            log(event="done", peak_memory=peak_resident())
        shutil.rmtree(state, ignore_errors=True)
    return info


def reconstruct(
    scan: Scan | str | Path,
    method: str | dict[str, Any] = "tv",
    grid: VolumeGeometry | None = None,
    backend: str = "auto",
    callback: Callback | None = None,
) -> np.ndarray:
    """A scan as a volume in memory: attenuation in 1/mm, float32 (z, y, x).

    Args:
        scan: an opened scan or its path.
        method: a recipe's name, or a table as in a job file.
        grid: the volume; default the scan's suggestion.
        backend: projector; see `volrecon.projectors.BACKENDS`.
    """
    opened = scan if isinstance(scan, Scan) else open_scan(scan)
    volume = grid or opened.grid or suggest_grid(opened.geometry)
    warn_of_losses(coverage(volume, opened.geometry), opened)
    unit = 2 * opened.water_per_mm
    measurement = Measurement(opened.projections, opened.geometry, volume, RamSpace(), unit, opened.noise, backend)
    x, _ = solve(resolve_method(method), measurement, callback)
    return x.read(0, volume.shape[0]).numpy() * np.float32(unit)


@contextmanager
def _space(how: dict[str, Any], state: Path) -> Iterator[tuple[Space, ZarrSpace]]:
    """The space of a run's volumes, and the one its state is committed to."""
    with ZarrSpace(state, how["block_bytes"]) as disk:
        yield (disk if how["tier"] == "zarr" else RamSpace(how["block_bytes"])), disk


@contextmanager
def space_of(plan_tier: Tier, block_bytes: int, parent: Path) -> Iterator[Space]:
    """A space for volumes that no run needs any more afterwards."""
    if plan_tier == "ram":
        yield RamSpace(block_bytes)
    else:
        with temporary_space(parent, block_bytes) as space:
            yield space


def _how(checked: Checked, place: RunDirectory) -> tuple[dict[str, Any], Path]:
    """How an unfinished run was done, or how a new one will be; and the folder of its state.

    With a budget below what it was planned for, an unfinished run goes on in smaller blocks, or on disk: its result is
    then that of an undisturbed run up to rounding.

    Raises:
        ConfigError: the unfinished run is of another job.
        ResourceError: a new one fits neither memory nor disk.
    """
    compute, identity = checked.job.compute, _identity(checked)
    state = place.state_folder(identity["scratch"])
    before = place.unfinished()
    if before is not None:
        check_same(before["identity"], identity)
        _warn_of_versions(before["how"]["versions"])
        if not state.is_dir():
            raise IntegrityError(
                f"the state of the unfinished run is not in {state}: it was moved or removed, or its disk is not "
                f"mounted. Put it back to go on, or give --restart to compute it anew."
            )
        how = before["how"]
        if compute.memory and parsed_size(compute.memory) < how["planned_memory"]:
            how = {**how, **_within_budget(checked, place, state)}
            place.note({**before, "how": how})
        return how, state
    threads = compute.threads or torch.get_num_threads()
    how = {"threads": threads, "versions": _versions(), **_within_budget(checked, place, state)}
    place.begin(identity, how, checked.toml)
    return how, state


def _within_budget(checked: Checked, place: RunDirectory, state: Path) -> dict[str, Any]:
    """The part of how a run is done that its plan says."""
    plan = planned(checked)
    direct = beside(checked, plan)
    _check_disk(plan, place.path, state)
    return {
        "tier": plan.tier,
        "block_bytes": plan.block_bytes,
        "planned_memory": max(plan.memory, direct[1].memory if direct else 0),
        "planned_seconds": round(plan.seconds, 1),
        "baseline_memory": plan.baseline,
    }


def _identity(checked: Checked) -> dict[str, Any]:
    """All that the result depends on, and where the state of an unfinished run is."""
    scratch = checked.job.compute.scratch
    return {
        "job": checked.resolved,
        "geometry_fingerprint": checked.scan.geometry.fingerprint,
        "scan_digest": checked.scan.digest,
        "scratch": None if scratch is None else str(Path(scratch).resolve()),
    }


def _warn_of_versions(before: dict[str, str]) -> None:
    now = _versions()
    changed = [f"{name} {before.get(name)} -> {now[name]}" for name in now if before.get(name) != now[name]]
    if changed:
        warnings.warn(
            f"the run was begun with other versions ({', '.join(changed)}); its result may differ in the last digits",
            StorageWarning,
            stacklevel=2,
        )


def _check_disk(plan: Plan, out: Path, state: Path) -> None:
    """Refuse before computing what the disk cannot hold."""
    needs = {out: plan.output}
    existing = next(folder for folder in (state, *state.parents) if folder.exists())
    same = existing.stat().st_dev == out.stat().st_dev
    needs[out if same else existing] = needs.get(out, 0) * same + plan.scratch
    for folder, need in needs.items():
        free = shutil.disk_usage(folder).free
        if need > free:
            raise ResourceError(
                f"{shown_size(need)} of disk are needed in {folder}, {shown_size(free)} are free there; free some, or "
                f"choose another place (--out, --set compute.scratch=FOLDER)"
            )


def _attributes(checked: Checked) -> dict[str, Any]:
    """What the volume remembers: enough to make it again, and nothing of this machine."""
    return {
        "job": checked.resolved,
        "geometry_fingerprint": checked.scan.geometry.fingerprint,
        "scan_digest": checked.scan.digest,
        "versions": _versions(),
        "water_per_mm": checked.scan.water_per_mm,
    }


def _set_threads(count: int) -> None:
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    torch.set_num_threads(count)


@contextmanager
def _logging(path: Path) -> Iterator[Log]:
    """A function that appends a line to a log."""
    with writing(path, 0):
        file = path.open("ab", buffering=0)  # what a full disk refuses must not be tried again when it is closed
    with file:

        def log(**entry: Any) -> None:
            line = (json.dumps(entry) + "\n").encode()
            with writing(path, len(line)):
                file.write(line)

        yield log


def _versions() -> dict[str, str]:
    packages = {"numpy": np, "torch": torch, "numba": numba, "zarr": zarr}
    return {"volrecon": version("volrecon"), **{name: str(module.__version__) for name, module in packages.items()}}
