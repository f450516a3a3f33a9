"""MONAI's network behind the extra `monai`: as F where it is installed, a plain error where it is not."""

import sys

import pytest
import torch
from pydantic import ValidationError

from volrecon.errors import ConfigError
from volrecon.priors.monai_unet import MonaiUNetConfig

TINY = MonaiUNetConfig(kind="monai", channels=(8, 16), blocks=1, head_channels=8)


@pytest.fixture(scope="module")
def network():
    pytest.importorskip("monai", reason="the extra 'monai' is not installed")
    torch.manual_seed(0)
    net = TINY.build(5, 3).requires_grad_(False)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net


def test_without_monai_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets.diffusion_model_unet", None)
    with pytest.raises(ConfigError, match=r"pip install 'volrecon\[monai\]'"):
        TINY.build(3, 3)


def test_heads_must_share_out_the_channels():
    with pytest.raises(ValidationError, match="48 channels cannot be shared out to heads of 32"):
        MonaiUNetConfig(kind="monai", channels=(32, 48))


def test_sizes_come_out_as_they_went_in(network):
    for rows, columns in [(9, 14), (2, 2), (8, 8)]:
        found = network(torch.randn(2, 5, rows, columns), torch.tensor([-1.0, 0.5]), torch.tensor([0.0, 1.5]))
        assert found.shape == (2, 3, rows, columns)
        assert torch.isfinite(found).all()


def test_channels_need_not_be_multiples_of_sixteen():
    pytest.importorskip("monai", reason="the extra 'monai' is not installed")
    net = MonaiUNetConfig(kind="monai", channels=(24, 40), blocks=1, head_channels=8).build(3, 3)
    assert net(torch.zeros(1, 3, 8, 8), torch.zeros(1), torch.ones(1)).shape == (1, 3, 8, 8)


def test_noise_level_and_gap_are_heard(network):
    x = torch.randn(1, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    base = network(x, torch.tensor([0.0]), torch.tensor([1.0]))
    for noise, gap in [(0.1, 1.0), (0.0, 0.0), (0.0, 1.5), (0.0, 3.0)]:
        assert not torch.allclose(network(x, torch.tensor([noise]), torch.tensor([gap])), base, rtol=1e-3)


def test_samples_and_modes_do_not_matter(network):
    x = torch.randn(3, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    noise, gap = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 2.0])
    together = network.train()(x, noise, gap)
    assert torch.equal(network.eval()(x, noise, gap), together)
    alone = network(x[1:2], noise[1:2], gap[1:2])
    torch.testing.assert_close(alone[0], together[1], rtol=1e-4, atol=1e-4)


def test_one_size_on_the_meta_device_takes_no_memory():
    pytest.importorskip("monai", reason="the extra 'monai' is not installed")
    with torch.device("meta"):
        net = TINY.build(3, 3)
    assert all(parameter.is_meta for parameter in net.parameters())
