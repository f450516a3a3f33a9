"""The kernels' source, run on the CPU through the shim."""

import numpy as np
import pytest
import torch

from tests.kernels.contract import (  # noqa: F401
    test_blend_and_scatter_are_those_of_torch,
    test_blend_undoes_extract_and_scatter_is_its_adjoint,
    test_extract_is_that_of_torch,
    test_M7_unfit_tensors_are_refused_before_launch,
    test_no_voxels_are_no_launch,
    test_noise_alone_is_that_of_the_cpu_to_rounding,
    test_numbers_are_rounded_to_even_in_half_precision,
    test_random_integers_are_those_of_the_cpu,
    test_renoise_is_ddim_with_the_noise_of_the_cpu,
    test_renoise_serves_tensors_that_begin_anywhere,
    test_what_is_stitched_over_may_be_anything,
    test_z_kernels_pass_nan_on,
    test_z_split_is_difference_shrinkage_and_dual_update,
    test_z_transpose_is_that_of_the_difference,
)
from volrecon import cuda, patches
from volrecon.tiling import PatchGrid, patch_layout


def test_the_shim_notices_arguments_that_a_kernel_does_not_take(on):
    x = torch.zeros(4)
    with pytest.raises(TypeError, match="tv_z_transpose does not take PPPiiiif"):
        on("tv_z_transpose", (1, 1, 1), (1, 1, 1), [x, x, x, *[np.int32(1)] * 4, np.float32(1)])


def test_M7_indices_beyond_2_to_the_31(on):
    """A slice of 8.6 GB of zeros that no one has touched, and so takes no memory; its last patch."""
    try:
        x = torch.from_numpy(np.zeros((1, 2**16, 2**15 + 64), np.float32))
    except MemoryError:
        pytest.skip("the system reserves memory that is not used")
    x[0, -16:, -16:] = torch.arange(256.0).view(16, 16)
    layout = patch_layout(PatchGrid((x.shape[1], x.shape[2]), 16), "average", overlap=0)
    last = layout.all[-1:]
    assert x.numel() > 2**31
    assert torch.equal(cuda.patch_extract(x, layout, last, on=on)[0, 0], x[0, -16:, -16:])


def test_patches_go_through_the_kernels_where_they_can(on, monkeypatch):
    calls = []

    def launch(function, *rest):
        calls.append(function)
        on(function, *rest)

    x, layout = (
        torch.randn(2, 9, 11, generator=torch.Generator().manual_seed(0)),
        patch_layout(PatchGrid((9, 11), 4), "average", overlap=2),
    )
    operations = [
        lambda: patches.extract(x, layout, layout.all),
        lambda: patches.spread(x, layout, range(2, 5)),
        lambda: patches.blend(patches.extract(x, layout, layout.all), layout),
        lambda: patches.scatter(patches.extract(x, layout, layout.all), layout),
        lambda: patches.positions(layout, range(1, 4)),
        lambda: patches.network_input(x.mT.contiguous().mT, layout, range(7), 2.0, 1.0, torch.bfloat16),
    ]
    expected = [operation() for operation in operations]
    monkeypatch.setattr(launch, "kind", "cpu", raising=False)
    for name in ("patch_extract", "patch_blend"):
        function = getattr(cuda, name)
        monkeypatch.setattr(cuda, name, lambda *a, function=function, **k: function(*a, **k, on=launch))
    monkeypatch.setattr(patches, "_by_kernel", lambda x: True)
    for operation, wanted in zip(operations, expected, strict=True):
        calls.clear()
        assert torch.equal(operation(), wanted)
        assert calls
