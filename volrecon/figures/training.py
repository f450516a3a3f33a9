"""Pictures of a training run: its losses, and a batch of what it learns from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator

from volrecon.figures.panels import Look, new_axes, new_figure, save, show, write

WIDTH, HEIGHT = 13.0, 5.2
SAMPLES = 8
COLUMN_SLICES = 8
"""From this many slices on, a sample is shown in three planes."""


def training_figure(path: Path, history: Sequence[dict[str, Any]], name: str) -> None:
    """Weighted loss by noise band, and PSNR on held-out volumes by sigma, over the steps."""
    figure = new_figure(WIDTH, HEIGHT, f"training of {name}")
    left = new_axes(figure, 0.9, 0.9, 5.3, 3.6)
    right = new_axes(figure, 7.2, 0.9, 5.4, 3.6)
    steps = [line["step"] for line in history]
    for band in sorted({band for line in history for band in line["by_band"]}, key=_band_start):
        left.plot(steps, [line["by_band"].get(band, np.nan) for line in history], label=f"sigma {band}", lw=1)
    left.set(xlabel="step", ylabel="weighted loss", yscale="log", title="loss, weighted after EDM")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    left.yaxis.set_major_formatter("{x:g}")
    left.minorticks_off()
    scored = [line for line in history if line["psnr"]]
    for sigma in scored[-1]["psnr"] if scored else ():
        values = [line["psnr"].get(sigma, np.nan) for line in scored]
        right.plot([line["step"] for line in scored], values, marker=".", label=f"sigma {sigma}")
    right.set(xlabel="step", ylabel="PSNR in dB, data range 1", title="denoising held-out volumes, averaged weights")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    save(figure, path)


def batch_figure(path: Path, clean: np.ndarray, noisy: np.ndarray, sigma: np.ndarray, gap: np.ndarray) -> None:
    """The first samples of a batch: every slice of the group clean, and the middle one noisy.

    Args:
        clean, noisy: (batch, slices, size, size), linear unit.
        sigma, gap: (batch,).
    """
    count, slices = min(SAMPLES, len(clean)), clean.shape[1]
    panel = min(1.5, (WIDTH - 1) / count)
    height = 1.5 + (slices + 1) * (panel + 0.1)
    figure = new_figure(max(5.0, 1.0 + count * (panel + 0.05)), height, "a training batch, linear unit 0 to 1")
    look = Look("gray", (0.0, 1.0), "")
    for k in range(count):
        at = 0.8 + k * (panel + 0.05)
        write(figure, at + panel / 2, 0.7, f"gap {gap[k]:.3g}, sigma {sigma[k]:.2g}", size=8)
        for row, image in enumerate([*clean[k], noisy[k, slices // 2]]):
            axes = new_axes(figure, at, 0.9 + row * (panel + 0.1), panel, panel)
            axes.set_axis_off()
            show(axes, image, look, "upper")
    for row in range(slices + 1):
        label = "middle, noisy" if row == slices else f"slice {row}"
        write(figure, 0.5, 0.9 + row * (panel + 0.1) + panel / 2, label, rotation=90, size=9)
    save(figure, path)


def samples_figure(path: Path, samples: Sequence[np.ndarray], title: str) -> None:
    """The middle slice of every sample; of volumes also the middle coronal and sagittal plane.

    Args:
        samples: (z, y, x) each, linear unit, all of one shape.
    """
    z, y, x = samples[0].shape
    planes = 3 if z > COLUMN_SLICES else 1
    panel = min(3.0, (WIDTH - 1) / len(samples))
    heights = [panel * y / x, panel * z / x, panel * z / x * x / y][:planes]
    figure = new_figure(max(5.0, 0.6 + len(samples) * (panel + 0.1)), 1.0 + sum(heights) + 0.2 * planes, title)
    look = Look("gray", (0.0, 1.0), "")
    for k, sample in enumerate(samples):
        top = 0.7
        images = (sample[z // 2], sample[::-1, y // 2], sample[::-1, :, x // 2])
        for image, height in zip(images, heights, strict=False):
            axes = new_axes(figure, 0.3 + k * (panel + 0.1), top, panel, height)
            axes.set_axis_off()
            show(axes, image, look, "upper")
            top += height + 0.15
    save(figure, path)


def _band_start(band: str) -> float:
    return float(band.split("..")[0])
