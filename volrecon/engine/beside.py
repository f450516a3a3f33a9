"""The direct method whose volume a report shows beside that of an iterative one."""

from __future__ import annotations

from dataclasses import replace

from volrecon.engine.checking import Checked
from volrecon.engine.planning import planned
from volrecon.errors import ConfigError, ResourceError
from volrecon.plan import Plan
from volrecon.solvers import Method
from volrecon.solvers.fbp import FBP
from volrecon.solvers.fdk import FDK


def beside(checked: Checked, plan: Plan) -> tuple[Checked, Plan] | None:
    """FDK or FBP of the same data, and how it runs: in no more memory than the job itself, or on disk.

    None where the geometry has none, the job is one itself, or it fits nowhere.
    """
    if checked.method.kind == "direct":
        return None
    method: Method = FDK() if checked.scan.geometry.beam == "cone" else FBP()
    try:
        method.check(checked.scan.geometry, checked.grid, checked.job.compute.backend)
    except ConfigError:
        return None
    direct = replace(checked, method=method)
    compute = checked.job.compute.model_copy(update={"tier": "zarr"})
    on_disk = replace(direct, job=checked.job.model_copy(update={"compute": compute}))
    for job, budget in ((direct, plan.memory), (on_disk, plan.budget)):
        try:
            return job, planned(job, budget)
        except ResourceError:
            continue
    return None
