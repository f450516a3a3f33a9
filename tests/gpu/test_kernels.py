"""The kernels on a GPU: the contract that the CPU runs through the shim, streams, and the prior that uses them."""

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
from volrecon.priors import CallableDenoiser, PatchPrior
from volrecon.sampling import NoiseKey
from volrecon.tiling import PatchGrid, patch_layout

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(not cuda.installed(), reason="no cupy"),
]


@pytest.fixture(scope="session")
def on():
    return cuda.GPU


def test_kernels_wait_for_torchs_stream_and_torch_for_them():
    """On a stream of their own, after work that takes a while, and read by torch at once."""
    layout = patch_layout(PatchGrid((512, 512), 56), shift=(7, 30))
    ones = torch.ones(8, 512, 512, device="cuda")
    with torch.cuda.stream(torch.cuda.Stream()):
        for step in range(20):
            slow = torch.randn(4096, 4096, device="cuda")
            x = ones * (slow @ slow).mul(0).sum().add(step)
            found = patches.blend(patches.extract(x, layout, layout.all), layout)
            assert float((found - step).abs().max()) == 0


def test_indices_beyond_2_to_the_31():
    free, _ = torch.cuda.mem_get_info()
    if free < 40e9:
        pytest.skip(f"needs 40 GB on the GPU; {free / 1e9:.0f} GB are free")
    layout = patch_layout(PatchGrid((2048, 2048), 64), "average", overlap=0)
    x = torch.arange(2**20, device="cuda").float().view(1, 1, 2**20).expand(520, 4, 2**20).reshape(520, 2048, 2048)
    cut = patches.extract(x, layout, layout.all)
    assert cut.numel() > 2**31
    assert torch.equal(patches.blend(cut, layout), x)


@pytest.mark.parametrize("mode", ["padis", "average"])
def test_a_prior_makes_on_the_gpu_what_it_makes_on_the_cpu(mode):
    prior = PatchPrior(
        CallableDenoiser(lambda v, s: torch.tanh(v) + v.roll(1, -1), slices=1), 24, mode=mode, patch_batch=5
    )
    tiles = torch.randn(3, 1, 100, 90, generator=torch.Generator().manual_seed(0))
    v, key = tiles.flip(0), NoiseKey(4, 2)
    pairs = [
        (prior.denoise_groups(some, 0.3, 0, key, range(3)), prior.groups_vjp(some, 0.3, 0, key, w, range(3)))
        for some, w in ((tiles, v), (tiles.cuda(), v.cuda()))
    ]
    for on_cpu, on_gpu in zip(*pairs, strict=True):
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-5, atol=1e-5)
