"""Indices beyond 2^31 voxels, in arrays of which hardly a page is ever touched."""

import numpy as np
import pytest
import torch

from volrecon.geometry import VolumeGeometry, parallel
from volrecon.projectors import projector
from volrecon.store import ZarrSpace
from volrecon.volume import RamSpace, RamVolume, slice_bytes, sweep

WIDE = VolumeGeometry((6, 20_000, 20_000), (1.0, 1.0, 1.0))
"""2.4e9 voxels."""


@pytest.fixture(scope="module")
def zeros():
    """A volume of zeros that the system has not given pages to, except for two voxels at its far end."""
    x = np.zeros(WIDE.shape, np.float32)
    assert x.size > 2**31
    x[5, 19_990, 19_980] = 1.0
    x[5, 19_990, 19_981] = 0.5
    return x


@pytest.mark.parametrize(("angle", "column"), [(0.0, 19_980), (np.pi / 2, 19_990)])
def test_a_ray_meets_voxels_beyond_2_to_the_31(zeros, angle, column):
    """Along y it passes one of the two, along x both; what is before and after it is 0."""
    offset = (2.5, column - 9_999.5)
    scan = parallel(detector_shape=(1, 1), pixel_mm=1.0, angles=[angle], detector_offset_mm=offset)
    y = projector(WIDE, scan)(zeros)
    assert y.ravel() == pytest.approx(1.0 if angle == 0 else 1.5, rel=1e-5)


def test_a_slab_far_up_is_projected_like_one_below():
    """4e9 voxels, of which only slabs exist."""
    tall = VolumeGeometry((1_000_000, 64, 64), (1.0, 1.0, 1.0))
    scan = parallel(detector_shape=(1_000_000, 64), pixel_mm=1.0, angles=[0.3, 1.1])
    A = projector(tall, scan)
    x = np.random.default_rng(0).random((4, 64, 64), np.float32)
    first, last = (A.restrict(slices=slice(start, start + 4)) for start in (500_000, 999_990))
    low, high = first(x), last(x)
    np.testing.assert_allclose(low, high, rtol=1e-4)
    np.testing.assert_allclose(first.T(low), last.T(low), rtol=1e-4)


def test_scratch_of_more_than_2_to_the_31_voxels(tmp_path):
    """Chunks at its far end; the rest is never written, and reading it is an error and not a zero."""
    with ZarrSpace(tmp_path) as space:
        volume = space.empty((1_100_000, 48, 48))
        block = torch.rand(16, 48, 48)
        volume.write(1_099_984, block)
        assert torch.equal(volume.read(1_099_984, 1_100_000), block)
        assert torch.equal(volume.read(1_099_999, 1_100_000), block[15:])


def test_a_sweep_over_more_than_2_to_the_31_voxels():
    """Partials and blocks of a broadcast volume: one value, seen 2.2e9 times."""
    shape = (550, 2_000, 2_000)
    volume = RamVolume(torch.ones(1).expand(shape))
    assert slice_bytes(shape) * shape[0] == 4 * 2_200_000_000
    last = []
    (count,) = sweep(
        RamSpace(), lambda slab, block: (last.append(slab.stop) or [], [np.full(len(block), 4e6)]), [volume]
    )
    assert (last[-1], count) == (550, 2.2e9)
