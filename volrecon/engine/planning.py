"""A job's measurement, and its plan."""

from __future__ import annotations

from volrecon.engine.checking import Checked
from volrecon.memory import give_back_freed, parsed_size
from volrecon.plan import Plan, Tier, default_budget, make_plan
from volrecon.solvers import Measurement
from volrecon.volume import RamSpace, Space


def planned(checked: Checked, budget: int | None = None) -> Plan:
    """How a job would run here, in a budget of bytes: default the memory it names, or a share of what is free.

    Raises:
        ResourceError: it cannot fit.
    """
    give_back_freed()
    compute = checked.job.compute
    tiers: list[Tier] = ["ram", "zarr"] if compute.tier == "auto" else [compute.tier]
    if budget is None:
        budget = parsed_size(compute.memory) if compute.memory else default_budget()
    block = int(compute.block_mib * 2**20) if compute.block_mib else None
    return make_plan(checked.method, measure(checked, RamSpace()), budget, tiers, block)


def measure(checked: Checked, space: Space) -> Measurement:
    """The measurement of a job, its volumes in `space`."""
    c = checked
    return Measurement(
        c.scan.projections, c.scan.geometry, c.grid, space, c.unit_per_mm, c.scan.noise, c.job.compute.backend
    )
