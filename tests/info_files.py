"""Files that `volrecon info` is asked about, and what a picture must be."""

import numpy as np
from balls import GRID
from matplotlib.image import imread

from volrecon.store import write_volume
from volrecon.volume import RamSpace

GEOMETRY = (
    'beam = "parallel"\n[detector]\nrows = 20\ncolumns = 32\npixel_mm = 2\n'
    '[angles]\nunit = "deg"\nstep = 15\ncount = 24\n'
)
VALUES = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)


def is_picture(path):
    image = imread(path)
    return path.stat().st_size > 5_000 and 650 < image.shape[1] <= 1400 and np.ptp(image[..., :3]) > 0.5


def volume_store(path, values=VALUES):
    grid = type(GRID)(values.shape, GRID.voxel_zyx_mm)
    write_volume(path, RamSpace().of(Readable(values)), grid, {"water_per_mm": 0.02})
    return path


class Readable:
    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def read(self, start, stop):
        import torch

        return torch.from_numpy(self.values[start:stop])
