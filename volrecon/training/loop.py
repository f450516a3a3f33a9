"""The training loop: steps, average, checkpoints, validation. Every step is a function of the state and its number."""

import contextlib
import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from volrecon.errors import DivergedError
from volrecon.priors.denoiser import Conditions, Preconditioned, loss_weight, native_precision
from volrecon.stopping import told_to_stop
from volrecon.training import checkpoint
from volrecon.training.batches import Batch, Draw, batches
from volrecon.training.config import Training
from volrecon.training.distributed import Ranks
from volrecon.training.evaluate import denoising_psnr, validation_batch
from volrecon.training.prepare import Prepared

BANDS = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Edges of the noise bands whose losses are told apart."""

BETAS = (0.9, 0.99)
"""Of AdamW; the squares are forgotten sooner than usual, because rare large sigmas give rare large gradients."""

REPORT_EVERY = 50
CHECKPOINT_MINUTES = 3.0


@dataclass(frozen=True)
class Line:
    """What the loop tells whoever watches: one every `REPORT_EVERY` steps and one a validation."""

    step: int
    minutes: float
    done: float
    loss: float
    by_band: dict[str, float]
    psnr: dict[str, float] | None = None


@dataclass(frozen=True)
class Trained:
    """What a training came to: the averaged network, its last validation, and whether its budget is used up."""

    network: nn.Module
    step: int
    finished: bool
    psnr: dict[str, float]
    history: list[dict[str, Any]]


class Loop:
    """One training run.

    Args:
        training: the file.
        prepared: its data.
        folder: where checkpoints lie.
        device: where the network lives.
        ranks: the processes that share the work.
        workers: loader processes.
        fingerprint: what must agree for a checkpoint to be taken up.
    """

    def __init__(
        self,
        training: Training,
        prepared: Prepared,
        folder: Path,
        device: torch.device,
        ranks: Ranks,
        workers: int,
        fingerprint: dict[str, Any],
    ) -> None:
        self.training, self.prepared, self.ranks, self.workers = training, prepared, ranks, workers
        self.device, self.path, self.fingerprint = device, folder / "checkpoint.safetensors", fingerprint
        self.draw = Draw(prepared.training, training)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            inputs = training.groups.slices + 2 * training.patches.padded
            network = training.network.build(inputs, training.groups.slices)
        self.network = network.to(device)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        settings = training.optimiser
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            settings.learning_rate,
            betas=BETAS,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.denoiser = self._denoiser(ranks.wrapped(self.network))
        self.step, self.minutes, self.meter = 0, 0.0, Meter()
        self.history: list[dict[str, Any]] = []

    def run(self, report: Callable[[Line], None], stop_after: int | None = None) -> Trained:
        """Train to the end of the budget, going on from a checkpoint if there is one.

        SIGTERM, SIGINT, or `stop_after` steps end it early at a checkpoint.

        Raises:
            DivergedError: the loss is not a finite number; the last checkpoint stands.
        """
        self._resume()
        last = self.training.budget.steps or 2**31
        started, saved = time.monotonic() - 60 * self.minutes, time.monotonic()
        drawn = batches(self.draw, self.step, last, self.workers, self.ranks.rank)
        with told_to_stop() as told, contextlib.closing(drawn):
            for batch in drawn:
                stop = bool(told) or (stop_after is not None and self.step >= stop_after)
                if self.done >= 1 or self.ranks.any(stop):
                    break
                self.meter.add(batch.sigma, self._step(batch.to(self.device)))
                self.minutes = self.ranks.first((time.monotonic() - started) / 60)
                self._report(report)
                if time.monotonic() - saved > 60 * CHECKPOINT_MINUTES:
                    self._save()
                    saved = time.monotonic()
            self._save()
        psnr = self._validate() if self.ranks.rank == 0 else {}
        return Trained(self.average, self.step, self.done >= 1, psnr, self.history)

    @property
    def done(self) -> float:
        """Share of the budget used."""
        budget = self.training.budget
        return self.step / budget.steps if budget.steps else self.minutes / (budget.minutes or 1)

    def _step(self, batch: Batch) -> torch.Tensor:
        """One step; the weighted losses of the samples (batch,)."""
        settings = self.training.optimiser
        warm = min(1.0, (self.step + 1) / settings.warm_up) if settings.warm_up else 1.0
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(self.done, 1.0)))
        noisy = batch.clean + batch.sigma[:, None, None, None] * batch.noise
        denoised = self.denoiser(noisy, batch.sigma, Conditions(batch.gap, batch.position))
        error = (denoised - batch.clean).square().mean(dim=(1, 2, 3))
        losses = loss_weight(batch.sigma, self.denoiser.sigma_data) * error
        loss = losses.mean()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip_norm)
        # Not finite where the loss is not, on whichever rank: all of them end here.
        if not torch.isfinite(norm):
            raise DivergedError(
                f"the loss is {loss.item():g} and the norm of its gradient {norm.item():g} at step {self.step}; "
                f"the last checkpoint stands. Train with optimiser.learning_rate below {settings.learning_rate:g} "
                f"into another --out."
            )
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        self._average()
        return losses.detach()

    @torch.no_grad()
    def _average(self) -> None:
        """Power-law average of Karras et al. 2024, eq. 3: beta = (1 - 1/t)^(exponent + 1)."""
        share = 1 - (1 - 1 / self.step) ** (self.training.optimiser.average + 1)
        pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
        for kept, now in pairs:
            kept.lerp_(now, share)

    def _report(self, report: Callable[[Line], None]) -> None:
        due = self.step % self.training.validation.every == 0
        if not due and self.step % REPORT_EVERY:
            return
        psnr = self._validate() if due and self.ranks.rank == 0 else None
        line = Line(self.step, self.minutes, self.done, *self.meter.means(), psnr)
        self.meter = Meter()
        self.history.append({"step": line.step, "loss": line.loss, "by_band": line.by_band, "psnr": line.psnr})
        report(line)

    def _validate(self) -> dict[str, float]:
        if not self.prepared.held_out:
            return {}
        batch = validation_batch(Draw(self.prepared.held_out, self.training)).to(self.device)
        return denoising_psnr(self._denoiser(self.average), batch, self.training.validation.sigmas)

    def _denoiser(self, network: nn.Module) -> Preconditioned:
        stated = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(self.training.precision)
        return Preconditioned(
            network,
            slices=self.training.groups.slices,
            positions=self.training.patches.padded,
            sigma_data=self.prepared.deviation,
            centre=self.prepared.mean,
            precision=stated or native_precision(self.device),
        )

    def _save(self) -> None:
        if self.ranks.rank == 0:
            parts = self.network, self.average, self.optimiser, vars(self.meter)
            now = checkpoint.snapshot(*parts, self.step, self.minutes, self.history)
            checkpoint.write(self.path, now, self.fingerprint)

    def _resume(self) -> None:
        saved = checkpoint.read(self.path, self.fingerprint)
        if saved is not None:
            losses = checkpoint.restore(saved, self.network, self.average, self.optimiser)
            self.meter = Meter(**losses)
            self.step, self.minutes, self.history = saved.step, saved.minutes, saved.history


def _nothing_yet() -> torch.Tensor:
    return torch.zeros(len(BANDS) + 1, dtype=torch.float64)


@dataclass(frozen=True)
class Meter:
    """Mean loss of many samples, in all and by noise band."""

    sums: torch.Tensor = field(default_factory=_nothing_yet)
    counts: torch.Tensor = field(default_factory=_nothing_yet)

    def add(self, sigma: torch.Tensor, losses: torch.Tensor) -> None:
        band = torch.bucketize(sigma.cpu(), torch.tensor(BANDS))
        self.sums.index_add_(0, band, losses.cpu().double())
        self.counts.index_add_(0, band, torch.ones_like(band, dtype=torch.float64))

    def means(self) -> tuple[float, dict[str, float]]:
        edges = ["0", *(f"{edge:g}" for edge in BANDS), "inf"]
        pairs = zip(self.sums.tolist(), self.counts.tolist(), edges, edges[1:], strict=False)
        by_band = {f"{low}..{high}": total / count for total, count, low, high in pairs if count}
        return float(self.sums.sum() / self.counts.sum()), by_band
