"""Running jobs: the only place that knows scans, methods, memory and outputs together."""

from volrecon.engine.beside import beside
from volrecon.engine.checking import Checked, check, warn_of_losses
from volrecon.engine.planning import measure, planned
from volrecon.engine.running import reconstruct, run, space_of
from volrecon.engine.solving import Callback, Progress, solve

__all__ = [
    "Callback",
    "Checked",
    "Progress",
    "beside",
    "check",
    "measure",
    "planned",
    "reconstruct",
    "run",
    "solve",
    "space_of",
    "warn_of_losses",
]
