"""The U-Net: any size, local, the same everywhere, every sample and setting on its own."""

import pytest
import torch
from pydantic import ValidationError

from volrecon.priors.unet import UNet, UNetConfig

NOISE, GAP = torch.tensor([-0.5]), torch.tensor([1.0])
SHAPES = [((4,), 1), ((4, 6), 1), ((4, 6), 2), ((4, 4, 4), 1)]


def network(channels=(4, 6), blocks=1, inputs=2, outputs=2, seed=0) -> UNet:
    """With every weight drawn at random: fresh blocks are the identity and would hide what they do."""
    torch.manual_seed(seed)
    net = UNet(inputs, outputs, channels, blocks)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.5 if parameter.ndim == 1 else 1.5 / parameter[0].numel() ** 0.5)
    return net.requires_grad_(False)


def noise_image(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows", [1, 2, 7, 8])
@pytest.mark.parametrize("columns", [1, 5, 12])
def test_any_size_comes_out_as_it_went_in(rows, columns):
    found = network((4, 4, 4), inputs=3, outputs=2)(noise_image(2, 3, rows, columns), torch.zeros(2), torch.ones(2))
    assert found.shape == (2, 2, rows, columns)
    assert torch.isfinite(found).all()


def test_padding_is_the_edge_repeated():
    net, x = network(), noise_image(1, 2, 7, 5)
    beyond = torch.nn.functional.pad(x, (0, 1, 0, 1), mode="replicate")
    torch.testing.assert_close(net(x, NOISE, GAP), net(beyond, NOISE, GAP)[..., :7, :5])


@pytest.mark.parametrize(("channels", "blocks"), SHAPES, ids=str)
def test_reach_is_how_far_one_pixel_is_felt(channels, blocks):
    """Changing one pixel changes outputs up to the reach away, for some pixel exactly so far, and none beyond."""
    net = network(channels, blocks).double()
    reach, stride = net.reach, net.stride
    size = 2 * (reach + stride) // stride * stride + 2 * stride
    x = noise_image(1, 2, stride, size).double()
    before, farthest = net(x, NOISE.double(), GAP.double()), 0
    for at in range(size // 2, size // 2 + stride):
        changed = x.clone()
        changed[..., at] += 1.0
        felt = (net(changed, NOISE.double(), GAP.double()) != before).any(dim=2)[0].any(dim=0).nonzero().ravel()
        assert (felt == at).any()
        farthest = max(farthest, int((felt - at).abs().max()))
    assert farthest == reach


def test_reach_of_the_default_network():
    channels = UNetConfig().channels
    assert UNet(3, 3, channels, UNetConfig().blocks).reach == 97


def test_translation_by_the_stride_commutes():
    net = network((4, 6), 1).double()
    reach, stride = net.reach, net.stride
    size = 2 * reach + 8 * stride
    x = noise_image(1, 2, size, size).double()
    moved = net(x.roll((stride, -stride), (2, 3)), NOISE.double(), GAP.double())
    back = moved.roll((-stride, stride), (2, 3))
    inner = slice(reach + stride, size - reach - stride)
    whole = net(x, NOISE.double(), GAP.double())
    torch.testing.assert_close(back[..., inner, inner], whole[..., inner, inner], rtol=1e-9, atol=1e-9)


def test_samples_of_a_batch_do_not_see_each_other():
    net, x = network(), noise_image(4, 2, 8, 8)
    noise, gap = torch.tensor([-1.0, 0.0, 0.5, 1.0]), torch.tensor([0.0, 1.0, 2.0, 3.5])
    together = net(x, noise, gap)
    for k in range(4):
        torch.testing.assert_close(
            net(x[k : k + 1], noise[k : k + 1], gap[k : k + 1])[0], together[k], rtol=1e-5, atol=1e-5
        )
    other = x.clone()
    other[1] = 100
    assert torch.equal(net(other, noise, gap)[[0, 2, 3]], together[[0, 2, 3]])


def test_noise_level_and_gap_are_heard():
    net, x = network(), noise_image(1, 2, 8, 8)
    base = net(x, NOISE, GAP)
    for noise, gap in [(NOISE + 0.05, GAP), (NOISE, GAP + 0.2), (NOISE, 0 * GAP), (NOISE, GAP + 10)]:
        assert (net(x, noise, gap) - base).abs().max() > 1e-3 * base.abs().max()


def test_training_and_evaluation_are_the_same():
    """No batch statistics, no dropout: guidance may run D twice and gets the same."""
    net, x = network(), noise_image(3, 2, 8, 8)
    arguments = x, NOISE.expand(3), GAP.expand(3)
    assert torch.equal(net.train()(*arguments), net.eval()(*arguments))
    assert not [name for name, _ in net.named_buffers() if "running" in name]
    assert set(net.state_dict()) == {name for name, _ in net.named_parameters()}


def test_bfloat16_is_close_to_float32():
    net, x = network(), noise_image(2, 2, 16, 16)
    full = net(x, NOISE.expand(2), GAP.expand(2))
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x, NOISE.expand(2), GAP.expand(2))
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).square().mean().sqrt() < 0.03 * full.square().mean().sqrt()


def test_fresh_blocks_are_the_identity():
    """What a new network makes of x does not depend on the noise level: its blocks add nothing yet."""
    torch.manual_seed(0)
    net, x = UNet(2, 2, (4, 6), 2), noise_image(1, 2, 8, 8)
    assert torch.equal(net(x, NOISE, GAP), net(x, NOISE + 1, GAP + 1))


def test_config_builds_what_it_says():
    net = UNetConfig(channels=(4, 8, 8), blocks=1).build(5, 3)
    assert net.stride == 4
    assert net(noise_image(1, 5, 4, 4), NOISE, GAP).shape == (1, 3, 4, 4)


@pytest.mark.parametrize(
    "wrong",
    [{"channels": ()}, {"channels": (0,)}, {"channels": (4,) * 7}, {"blocks": 0}, {"blocks": 9}, {"depth": 3}],
    ids=str,
)
def test_impossible_configs_are_refused(wrong):
    with pytest.raises(ValidationError):
        UNetConfig(**wrong)
