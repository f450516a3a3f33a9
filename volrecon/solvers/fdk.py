"""FDK: approximate filtered backprojection of a circular cone beam."""

import numpy as np

from volrecon.errors import ConfigError
from volrecon.geometry import ScanGeometry, VolumeGeometry
from volrecon.solvers.filtered import Filtered

ROUND = 2e-3  # relative wobble of the source's circle that is still circular
LEANING = 0.1  # sine of the angle by which detector rows may rise


class FDK(Filtered):
    """Feldkamp, Davis and Kress, JOSA A 1(6), 1984: full turns, short scans (Parker) and displaced detectors."""

    def check(self, scan: ScanGeometry, volume: VolumeGeometry, backend: str) -> None:
        if scan.beam != "cone":
            raise ConfigError(f"fdk needs a circular cone beam; this is a {scan.beam} beam. Use fbp.")
        radius, height = scan.source_to_object_mm, scan.source[:, 2]
        wobble = max(np.ptp(radius), np.ptp(height)) / radius.mean()
        if wobble > ROUND:
            raise ConfigError(
                f"fdk needs a source on a circle about z; here its radius varies by {np.ptp(radius):.4g} mm and its "
                f"height by {np.ptp(height):.4g} mm. Use sirt, cgls or tv."
            )
        # What the filter takes from one view must hold for all, and its rows must run across the axis.
        u = scan.u / np.linalg.norm(scan.u, axis=1, keepdims=True)
        centre = (scan.detector * u).sum(1)
        width = scan.detector_shape[1] * np.linalg.norm(scan.u, axis=1)
        parts = (scan.source_to_detector_mm, centre, scan.detector[:, 2], width)
        uneven = max(np.ptp(part) for part in parts) / radius.mean()
        if uneven > ROUND or np.abs(u[:, 2]).max() > LEANING:
            raise ConfigError(
                f"fdk needs one detector position for all views and rows across the axis; here they vary "
                f"by up to {uneven * radius.mean():.4g} mm and the columns lean by up to "
                f"{np.rad2deg(np.arcsin(np.abs(u[:, 2]).max())):.3g} deg. Use sirt, cgls or tv."
            )
