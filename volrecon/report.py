"""What a run leaves for people: metrics beside the reference, and one picture."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from volrecon.engine import Checked, beside, measure, planned, solve, space_of
from volrecon.figures import report_figure
from volrecon.metrics import Comparison, compare
from volrecon.plan import Plan
from volrecon.solvers import Info
from volrecon.store import open_volume
from volrecon.volume import Readable, Volume


def write_report(checked: Checked, info: Info) -> dict[str, Comparison]:
    """`metrics.json` and `report.png` of a finished run: the result beside FDK or FBP and the reference.

    PSNR's data range is the run's unit, the attenuation of +1000 HU. Returns the scores by name.
    """
    out = checked.out
    result = open_volume(out / "volume.zarr")
    name = checked.name.upper()
    volumes: dict[str, Any] = {}
    with ExitStack() as stack:
        direct = beside(checked, planned(checked))
        if direct is not None:
            job, plan = direct
            volumes[type(job.method).__name__] = InUnit(_computed(job, plan, stack), checked.unit_per_mm)
        volumes[name] = result.data
        scores = {}
        if checked.reference:
            scores = {n: compare(checked.reference.data, v, checked.unit_per_mm) for n, v in volumes.items()}
            volumes["reference"] = checked.reference.data
        report_figure(
            out / "report.png",
            volumes,
            checked.grid.voxel_zyx_mm,
            reference="reference" if checked.reference else None,
            water_per_mm=checked.scan.water_per_mm,
            title=_title(checked, name),
            table=score_table(scores),
        )
    metrics = {
        "data_range_per_mm": checked.unit_per_mm,
        "residual": info.residual,
        "scores": {n: asdict(score) for n, score in scores.items()},
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    return scores


@dataclass(frozen=True)
class InUnit:
    """A run's volume seen in 1/mm, slab by slab."""

    source: Readable
    unit_per_mm: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    def __getitem__(self, key: slice) -> np.ndarray:
        start, stop, _ = key.indices(self.shape[0])
        return self.source.read(start, stop).numpy() * np.float32(self.unit_per_mm)


def score_table(scores: dict[str, Comparison]) -> list[list[str]]:
    """Rows of PSNR and SSIM, with a header that states the data range; empty without scores."""
    if not scores:
        return []
    first = next(iter(scores.values()))
    rows = [[f"data range {first.data_range:g} /mm", "PSNR dB", "SSIM axial", "coronal", "sagittal"]]
    for name, score in scores.items():
        planes = [score.axial.ssim, score.coronal.ssim, score.sagittal.ssim]
        rows.append([name, f"{score.psnr:.2f}", *("-" if s is None else f"{s:.3f}" for s in planes)])
    return rows


def _computed(job: Checked, plan: Plan, stack: ExitStack) -> Volume:
    """A job's volume, in a space that lives as long as the stack."""
    space = stack.enter_context(space_of(plan.tier, plan.block_bytes, job.out))
    return solve(job.method, measure(job, space))[0]


def _title(checked: Checked, name: str) -> str:
    scan = checked.scan.geometry
    return f"{name}, {scan.beam} beam, {scan.views} views, {' x '.join(map(str, checked.grid.shape))} voxels"
