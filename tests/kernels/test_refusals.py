"""What is refused before a launch, on tensors too large to exist."""

import sys

import pytest
import torch

from volrecon import cuda
from volrecon.errors import ConfigError, DataError, ResourceError
from volrecon.sampling import NoiseKey
from volrecon.tiling import PatchGrid, patch_layout


class Nowhere:
    """Takes tensors without memory and notes what it would launch."""

    kind = "meta"

    def __init__(self):
        self.launched = []

    def __call__(self, function, grid, block, arguments):
        self.launched.append((grid, arguments))


def made(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def test_M7_more_elements_than_32_bits_count_are_launched_with_64_bit_sizes():
    on = Nowhere()
    cuda.tv_z_split(made(2001, 2000, 2000), made(2000, 2000, 2000), 0.1, on=on)
    cuda.renoise(made(3000, 1024, 1024), made(3000, 1024, 1024), 0.5, 0.5, NoiseKey(0), 0, on=on)
    (split, arguments), (again, _) = on.launched
    assert split == (-(-(2000**3) // 1024), 1, 1)
    assert [int(n) for n in arguments[4:7]] == [2000**3, 2000**2, 2000**3]
    assert {n.dtype.name for n in arguments[4:7]} == {"int64"}
    assert again == (1024, 3000, 1)


def test_M7_grids_and_lengths_beyond_the_limits_are_refused():
    layout, on = patch_layout(PatchGrid((2**14, 2**14), 1)), Nowhere()
    with pytest.raises(ResourceError, match=r"grid of \(2684682250, 1, 1\) blocks"):
        cuda.patch_extract(made(10, 2**14, 2**14), layout, range(len(layout.all)), on=on)
    flat = made(2**16, 1, 1)
    cuda.renoise(flat[1:], flat[1:], 1.0, 1.0, NoiseKey(0), 0, on=on)
    with pytest.raises(ResourceError, match="renoise would take"):
        cuda.renoise(flat, flat, 1.0, 1.0, NoiseKey(0), 0, on=on)
    assert len(on.launched) == 1
    with pytest.raises(ResourceError, match="at most 2147483647"):
        cuda._arguments(ints=(2**31,))


def test_M7_tensors_on_another_device_are_refused():
    layout = patch_layout(PatchGrid((6, 8), 4))
    with pytest.raises(DataError, match="slices is on cpu; the kernel reads cuda"):
        cuda.patch_extract(torch.zeros(2, 6, 8), layout, layout.all)
    with pytest.raises(DataError, match="x0 is on cpu; the kernel reads meta"):
        cuda.renoise(made(1, 2, 2), torch.zeros(1, 2, 2), 1.0, 1.0, NoiseKey(0), 0, on=Nowhere())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda on: cuda.tv_z_split(made(5, 2, 2), made(3, 2, 2), 0.1, on=on), r"x has shape \(5, 2, 2\); expected"),
        (lambda on: cuda.tv_z_split(made(2, 2, 2), made(3, 2, 2), 0.1, on=on), r"expected \(3, 2, 2\)"),
        (lambda on: cuda.tv_z_split(made(3, 2, 3), made(3, 2, 2), 0.1, on=on), r"expected \(3, 2, 2\)"),
        (lambda on: cuda.tv_z_transpose(made(3, 2, 2), made(2, 2, 2), below=0, ends=True, on=on), "u has shape"),
        (lambda on: cuda.tv_z_transpose(made(3, 2, 2), made(3, 2, 2), below=2, ends=True, on=on), "0 or 1"),
        (lambda on: cuda.renoise(made(3, 2, 2), made(3, 2, 1), 1.0, 1.0, NoiseKey(0), 0, on=on), "x0 has shape"),
        (lambda on: cuda.patch_blend(made(3, 1, 4, 4), patch_layout(PatchGrid((4, 4), 4)), on=on), "patches has shape"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(call, message):
    on = Nowhere()
    with pytest.raises(DataError, match=message):
        call(on)
    assert on.launched == []


def test_only_types_that_networks_take_are_made():
    layout = patch_layout(PatchGrid((6, 8), 4))
    with pytest.raises(DataError, match="float64 is asked for"):
        cuda.patch_extract(made(2, 6, 8), layout, layout.all, dtype=torch.float64, on=Nowhere())


@pytest.mark.parametrize("part", [range(0, 10), range(-1, 3), range(0, 4, 2), range(4, 2)])
def test_patches_that_are_not_there_are_refused(part):
    layout = patch_layout(PatchGrid((6, 8), 4))
    with pytest.raises(DataError, match="no neighbours among the 6 patches"):
        cuda.patch_extract(made(2, 6, 8), layout, part, on=Nowhere())


def test_M6_a_launch_without_cupy_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ConfigError, match=r"volrecon\[gpu\]"):
        cuda.GPU("renoise", (1, 1, 1), (1, 1, 1), [])
