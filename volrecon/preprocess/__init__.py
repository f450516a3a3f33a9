"""Counts, flats, darks and offsets into line integrals, with a report of everything that was replaced.

`Prepared` is the projections after a `Preparation`; `find_axis` says where the rotation axis is seen.
"""

from volrecon.preprocess.axis import AxisEstimate, find_axis
from volrecon.preprocess.frames import agreed_counts, read_counts
from volrecon.preprocess.preparation import Preparation
from volrecon.preprocess.prepare import Prepared
from volrecon.preprocess.report import Report

__all__ = ["AxisEstimate", "Preparation", "Prepared", "Report", "agreed_counts", "find_axis", "read_counts"]
