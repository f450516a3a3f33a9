"""Filtered backprojection of parallel and fan stacks, slice by slice."""

import numpy as np

from volrecon.errors import ConfigError
from volrecon.geometry import ScanGeometry, VolumeGeometry
from volrecon.solvers.filtered import Filtered


class FBP(Filtered):
    """Filtered backprojection (Kak and Slaney 1988, chapter 3) of a parallel beam or a stack of fans.

    Arcs of any length: redundant rays are weighted (Parker), missing ones stay missing.
    """

    def check(self, scan: ScanGeometry, volume: VolumeGeometry, backend: str) -> None:
        in_plane = np.abs(scan.directions()[:, 2]) <= 1e-6 * np.linalg.norm(scan.directions(), axis=1)
        if scan.beam == "cone" or not in_plane.all():
            raise ConfigError(
                f"fbp needs rays that stay in their slice; this is a {scan.beam} beam"
                f"{'' if in_plane.all() else ' inclined to the slices'}. Use fdk for a circular cone beam, or "
                f"sirt, cgls or tv for any geometry."
            )
