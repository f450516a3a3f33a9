"""info on weights and training files."""

from collections.abc import Iterator
from pathlib import Path

from volrecon.cli.described import Described
from volrecon.priors.weights import file_sha256, load_prior
from volrecon.training.config import load_training


def weights(path: Path) -> Described:
    """The card of a weights file, after its seal was checked."""
    card = load_prior(path).card

    def lines() -> Iterator[str]:
        yield f"{path}: weights of prior {card.name!r}, {path.stat().st_size / 1e6:.1f} MB, whole"
        yield card.about
        table = card.network.model_dump()
        yield f"network: {table.pop('kind')}, " + ", ".join(f"{key} {value}" for key, value in table.items())
        yield (
            f"linear unit: 1 is {card.unit_per_mm:g} /mm, +1000 HU where water is {card.water_per_mm:g} /mm; trained "
            f"on values {card.value_range[0]:g} to {card.value_range[1]:g}, soft tissue at {card.soft_tissue:.3f}"
        )
        patch = f", patches of {card.patch} with positions" if card.patch else ""
        yield f"groups of {card.slices} slices, gaps {', '.join(map(str, card.gaps))}{patch}"
        pixels = f"pixels of {card.voxel_mm[0]:g} to {card.voxel_mm[1]:g} mm"
        yield f"{pixels}, slices of a group up to {card.gap_pixels[1]:.3g} pixels apart"
        yield f"noise: sigma {card.noise[0]:g} to {card.noise[1]:g}"
        scores = ", ".join(f"{psnr:.2f} at {sigma}" for sigma, psnr in card.psnr.items())
        yield f"{card.steps} steps; held-out PSNR in dB at sigma (data range 1): {scores or 'none'}"
        yield f"made by {card.command}, {card.commit}"
        for source in card.data:
            yield f"data: {source.origin}, {source.licence}"
        yield f"phantoms: {card.phantoms}"
        yield f"sha256 {file_sha256(path)}"

    return Described(lines())


def training_file(path: Path) -> Described:
    """A training.toml in short."""
    training = load_training(path)
    budget = training.budget
    until = f"{budget.steps} steps" if budget.steps else f"{budget.minutes:g} minutes"
    sources = ", ".join(source.file for source in training.data.sources)
    return Described(
        [
            f"{path}: training of prior {training.name!r}, {until}",
            training.about,
            f"groups of {training.groups.slices} slices, gaps {training.groups.gaps}, patches {training.patches.sizes}",
            f"data: {sources}" + (f", {training.data.phantoms.count} phantoms" if training.data.phantoms else ""),
        ]
    )
