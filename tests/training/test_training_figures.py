"""Pictures of a training are drawn whatever its history lacks."""

import numpy as np
import pytest
from matplotlib.image import imread

from volrecon.figures import batch_figure, training_figure

BANDS = {"0..0.02": 0.9, "0.02..0.05": 0.6, "0.5..inf": 0.3}


def drawn(path):
    image = imread(path)
    assert np.isfinite(image).all()
    assert image.shape[1] > 300
    return image


def line(step, by_band=BANDS, psnr=None):
    return {"step": step, "loss": 0.5, "by_band": by_band, "psnr": psnr}


@pytest.mark.parametrize(
    "history",
    [
        [],
        [line(50)],
        [line(50), line(100, {"0..0.02": 0.5}), line(150, {"0.2..0.5": 0.7, "0.5..inf": 0.2})],
        [line(50, psnr={}), line(100, psnr={})],
        [line(50, psnr={"0.1": 25.0}), line(100), line(150, psnr={"0.1": 27.0, "0.5": 19.0})],
        [line(50, psnr={"0.1": 25.0, "0.5": 18.0}), line(100, {}, psnr={"0.1": 26.0})],
    ],
    ids=["nothing", "one line", "missing bands", "no held-out volumes", "a new sigma", "a sigma less"],
)
def test_losses(tmp_path, history):
    training_figure(tmp_path / "losses.png", history, "trial $x$")
    drawn(tmp_path / "losses.png")


def test_losses_are_lines(tmp_path):
    training_figure(tmp_path / "none.png", [], "trial")
    training_figure(tmp_path / "some.png", [line(50 * k, psnr={"0.1": 20.0 + k}) for k in range(1, 9)], "trial")
    assert np.abs(drawn(tmp_path / "some.png") - drawn(tmp_path / "none.png")).sum() > 1000


@pytest.mark.parametrize(("count", "slices"), [(1, 1), (2, 3), (12, 3), (3, 15)])
def test_batches(tmp_path, count, slices):
    rng = np.random.default_rng(0)
    clean = rng.uniform(0, 1, (count, slices, 16, 16)).astype(np.float32)
    sigma, gap = np.full(count, 0.1, np.float32), np.full(count, 1.5, np.float32)
    noisy = clean + sigma[:, None, None, None] * rng.standard_normal(clean.shape).astype(np.float32)
    batch_figure(tmp_path / "batch.png", clean, noisy, sigma, gap)
    image = drawn(tmp_path / "batch.png")
    assert image[..., :3].std() > 0.05


def test_the_same_batch_gives_the_same_bytes(tmp_path):
    clean = np.zeros((2, 3, 16, 16), np.float32)
    for name in ("a.png", "b.png"):
        batch_figure(tmp_path / name, clean, clean + 0.1, np.full(2, 0.1), np.zeros(2))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
