"""Reconstruction methods by name.

To add one, write a class that derives from `Method` (or `Iterative`, `Filtered`) in a file of its own and name it in
`METHODS`; recipes then use it as `algorithm`, and the contract suite runs on it.
"""

from volrecon.solvers.cgls import CGLS
from volrecon.solvers.fbp import FBP
from volrecon.solvers.fdk import FDK
from volrecon.solvers.problem import Info, LeastSquares, Measurement, Method, State
from volrecon.solvers.sirt import SIRT
from volrecon.solvers.tv import TV

METHODS: dict[str, type[Method]] = {"fdk": FDK, "fbp": FBP, "sirt": SIRT, "cgls": CGLS, "tv": TV}

__all__ = ["METHODS", "Info", "LeastSquares", "Measurement", "Method", "State"]
