"""FDK: approximate filtered backprojection of a circular cone beam."""

import numpy as np

from volrecon.errors import ConfigError
from volrecon.geometry import ScanGeometry
from volrecon.solvers.filtered import Filtered

ROUND = 2e-3  # relative wobble of the source's circle that is still circular


class FDK(Filtered):
    """Feldkamp, Davis and Kress, JOSA A 1(6), 1984: full turns, short scans (Parker) and displaced detectors."""

    def check(self, scan: ScanGeometry) -> None:
        if scan.beam != "cone":
            raise ConfigError(f"fdk needs a circular cone beam; this is a {scan.beam} beam. Use fbp.")
        radius, height = scan.source_to_object_mm, scan.source[:, 2]
        wobble = max(np.ptp(radius), np.ptp(height)) / radius.mean()
        if wobble > ROUND:
            raise ConfigError(
                f"fdk needs a source on a circle about z; here its radius varies by {np.ptp(radius):.4g} mm and its "
                f"height by {np.ptp(height):.4g} mm. Use sirt, cgls or tv."
            )
