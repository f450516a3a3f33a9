"""What priors are worth as denoisers, beside total variation and non-local means: the tables of docs/priors.md.

    python bench/denoising.py [--out bench/results/denoising.json] [--priors builtin:ct builtin:ct-patch]

The development volumes (dev/crlm1004_abdomen_512.npz at 2.5 mm, dev/lung1_001_chest_256.npz at 3 mm; $VOLRECON_DATA
or ../shared/data) are cropped to 16 x 144 x 144 voxels at their middle. Gaussian noise of each sigma (linear unit, 1 is
2000 HU above air) is added and taken away again. Priors denoise as in a reconstruction: one partition into groups or
patches. Their rivals from scikit-image see all 16 slices at once and are given sigma and the strength that is best for
each cell, found with the truth. PSNR in dB, data range 1. Priors named with ":shuffled" see the slices in random order.
Cells that --out already holds are kept.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from record import write_record
from scipy.optimize import minimize_scalar
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from volrecon.exchange import read_any_volume
from volrecon.formats import Hints
from volrecon.geometry import VolumeGeometry
from volrecon.priors import load_prior, prior_of
from volrecon.resample import resampled
from volrecon.sampling import NoiseKey, standard_normal
from volrecon.volume import RamSpace, RamVolume

DATA = Path(os.environ.get("VOLRECON_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
VOLUMES = {"crlm1004": ("dev/crlm1004_abdomen_512.npz", 2.5), "lung1_001": ("dev/lung1_001_chest_256.npz", 3.0)}
SIGMAS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
CROP, WATER = (16, 144, 144), 0.02


def crop_of(name):
    """The middle of a development volume, linear unit (z, y, x)."""
    file, voxel = VOLUMES[name]
    values, grid, _ = read_any_volume(DATA / file, Hints(), WATER)
    target = VolumeGeometry(CROP, (voxel, voxel, voxel), grid.centre_xyz_mm)
    return resampled(values, grid, target) / np.float32(2 * WATER)


def psnr(truth, estimate):
    return float(-10 * np.log10(np.mean((truth - estimate) ** 2, dtype=np.float64)))


def best(denoise, truth, low, high):
    """Highest PSNR over the strength, searched in its logarithm, and that strength."""
    found = minimize_scalar(
        lambda log: -psnr(truth, denoise(np.exp(log))),
        bounds=np.log((low, high)),
        method="bounded",
        options={"maxiter": 10, "xatol": 0.03},
    )
    return -found.fun, float(np.exp(found.x))


def rival(name, truth, noisy, sigma):
    if name == "total variation":
        return best(lambda w: denoise_tv_chambolle(noisy, weight=w, max_num_iter=200), truth, sigma / 10, 10 * sigma)
    flat = {"patch_size": 3, "patch_distance": 4, "fast_mode": True, "sigma": sigma}
    return best(lambda h: denoise_nl_means(noisy, h=h, **flat), truth, sigma / 5, 3 * sigma)


def by_prior(name, noisy, sigma):
    """The noisy volume denoised by a prior; shuffled: its slices in random order."""
    shuffled = name.endswith(":shuffled")
    order = np.random.default_rng(0).permutation(len(noisy)) if shuffled else np.arange(len(noisy))
    prior = prior_of(load_prior(name.removesuffix(":shuffled")))
    x = RamVolume(torch.from_numpy(noisy[order]))
    out = prior.denoise(x, sigma, NoiseKey(0), RamSpace()).read(0, len(noisy)).numpy()
    return out[np.argsort(order)]


def cells(methods, held):
    for volume in VOLUMES:
        truth = crop_of(volume)
        noise = standard_normal(NoiseKey(7), 0, CROP).numpy()
        for sigma in SIGMAS:
            noisy = truth + np.float32(sigma) * noise
            for method in methods:
                known = [c for c in held if (c["volume"], c["sigma"], c["method"]) == (volume, sigma, method)]
                if known:
                    yield known[0]
                    continue
                cell = {"volume": volume, "sigma": sigma, "method": method}
                if method in ("total variation", "non-local means"):
                    cell["psnr"], cell["strength"] = rival(method, truth, noisy, sigma)
                else:
                    cell["psnr"] = psnr(truth, by_prior(method, noisy, sigma))
                yield cell


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--priors", nargs="*", default=["builtin:ct", "builtin:ct-patch"])
    parser.add_argument("--no-rivals", action="store_true")
    options = parser.parse_args()
    held = json.loads(options.out.read_text())["cells"] if options.out and options.out.exists() else []
    methods = [*([] if options.no_rivals else ["total variation", "non-local means"]), *options.priors]
    done = []
    print(f"| volume | sigma | {' | '.join(methods)} |")
    print("|---|---|" + "---|" * len(methods))
    for cell in cells(methods, held):
        done.append(cell)
        if len(done) % len(methods) == 0:
            row = " | ".join(f"{c['psnr']:.2f}" for c in done[-len(methods) :])
            print(f"| {cell['volume']} | {cell['sigma']:g} | {row} |", flush=True)
            if options.out:
                write_record(options.out, "python bench/denoising.py --priors " + " ".join(options.priors), cells=done)


if __name__ == "__main__":
    main()
