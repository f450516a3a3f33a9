"""What FBP and FDK do to projections before they are backprojected: weights and the ramp filter.

Formulas: Feldkamp, Davis, Kress, JOSA A 1(6), 1984; Parker, Med. Phys. 9(2), 1982, in the form of Noo et al.,
Phys. Med. Biol. 47, 2002 for any arc; Wang, Med. Phys. 29(7), 2002 for a displaced detector.
"""

from typing import Literal

import numpy as np
from scipy import fft

from volrecon.geometry import ScanGeometry

Window = Literal["ram-lak", "shepp-logan", "cosine", "hamming", "hann"]

TAPER = np.deg2rad(10.0)  # of the redundancy weights at the ends of an arc (Noo et al.)
DISPLACED = 0.9  # a detector is displaced when its shorter side is below this part of the longer


def angular_weights(scan: ScanGeometry) -> tuple[np.ndarray, bool]:
    """The angle each view stands for, radians (views,), and whether the views close a full turn.

    A parallel beam over half a turn closes as well: its views stand for a half turn between them.
    """
    turn = 2 * np.pi
    angles = scan.angles
    if len(angles) == 1:
        return np.array([np.pi if scan.beam == "parallel" else turn]), scan.beam != "parallel"
    if _largest_gap(angles, turn) <= _typical(angles, turn):
        return _cells(angles, turn), True
    if scan.beam == "parallel" and _largest_gap(angles, np.pi) <= _typical(angles, np.pi):
        return _cells(angles, np.pi), False
    return _open_cells(_along_arc(angles)), False


def redundancy_weights(scan: ScanGeometry, full_turn: bool) -> np.ndarray:
    """How much each ray counts so that every line counts once, (views, u): 1/2 in a full turn, 1 if seen once."""
    gamma = fan_angles(scan)
    if full_turn:
        return np.broadcast_to(0.5 * _displaced_weights(scan), (scan.views, len(gamma))).copy()
    beta = _along_arc(scan.angles)
    if scan.beam == "parallel" and _largest_gap(scan.angles, np.pi) <= _typical(scan.angles, np.pi):
        return np.ones((scan.views, len(gamma)))
    end = beta.max()
    own = _arc_weight(beta, end)[:, None]
    # The line of (beta, gamma), gamma along +u, is also that of (beta + pi - 2 gamma, -gamma).
    total = own + _arc_weight(np.mod(beta[:, None] + np.pi - 2 * gamma + 1e-12, 2 * np.pi), end)
    return own / total


def cosine_weights(scan: ScanGeometry, start: int, stop: int) -> np.ndarray:
    """Cosine of the angle between each ray of rows [start, stop) and the line from source to axis, (rows, views, u).

    That line is the detector's normal only where the axis is not shifted (Rit and Clackdoyle 2014).
    """
    rays = scan.rays()
    columns = scan.detector_shape[1]
    if scan.beam == "parallel":
        return np.ones((stop - start, 1, 1), np.float32)
    to_axis = -scan.source * [1, 1, 0]
    to_axis /= np.linalg.norm(to_axis, axis=1, keepdims=True)
    across = rays[:, 3, None] + np.arange(columns)[None, :, None] * rays[:, 4, None]
    out = np.empty((stop - start, scan.views, columns), np.float32)
    for row in range(start, stop):
        direction = across + row * rays[:, 5, None]
        out[row - start] = np.abs((direction * to_axis[:, None]).sum(2)) / np.linalg.norm(direction, axis=2)
    return out


def fan_angles(scan: ScanGeometry) -> np.ndarray:
    """Angle of each column's ray from the line source to axis, seen from above, positive along +u; (u,), view 0."""
    columns = scan.detector_shape[1]
    if scan.beam == "parallel":
        return np.zeros(columns)
    rays = scan.rays()[0]
    middle = (scan.detector_shape[0] - 1) / 2
    direction = (rays[3] + middle * rays[5])[None, :2] + np.arange(columns)[:, None] * rays[4, :2]
    to_axis = -scan.source[0, :2]
    cross = to_axis[0] * direction[:, 1] - to_axis[1] * direction[:, 0]
    along = direction @ to_axis
    sign = np.sign(to_axis[0] * scan.u[0, 1] - to_axis[1] * scan.u[0, 0])
    angles: np.ndarray = sign * np.arctan2(cross, along)
    return angles


def ramp_filtered(rows: np.ndarray, spacing: float, window: Window, cutoff: float) -> np.ndarray:
    """Rows (..., u) convolved with the band-limited ramp, at sample spacing `spacing` mm; units 1/mm of the input's.

    Truncated rows are continued beyond the detector by a cosine taper of their edge values.
    """
    columns = rows.shape[-1]
    margin = max(columns // 2, 8)
    extended = np.empty((*rows.shape[:-1], columns + 2 * margin), np.float32)
    taper = (np.cos(np.linspace(0, np.pi / 2, margin + 2)[1:-1]) ** 2).astype(np.float32)
    extended[..., margin:-margin] = rows
    extended[..., :margin] = rows[..., :1] * taper[::-1]
    extended[..., -margin:] = rows[..., -1:] * taper
    length = fft.next_fast_len(2 * extended.shape[-1], real=True)
    spectrum = fft.rfft(extended, length, workers=-1) * _ramp(length, spacing, window, cutoff)
    filtered = fft.irfft(spectrum, length, workers=-1)[..., margin : margin + columns]
    return np.ascontiguousarray(filtered, dtype=np.float32)


def _ramp(length: int, spacing: float, window: Window, cutoff: float) -> np.ndarray:
    """Transfer function of the ramp sampled in space (Kak and Slaney, eq. 3.61), which keeps the mean right."""
    n = fft.fftfreq(length, 1 / length)
    odd = np.mod(np.abs(n), 2) == 1
    kernel = np.where(odd, -1.0 / (np.pi * np.where(odd, n, 1.0) * spacing) ** 2, 0.0)
    kernel[0] = 1 / (4 * spacing**2)
    ramp = np.real(fft.rfft(kernel)) * spacing
    f = np.linspace(0, 1, len(ramp)) / cutoff  # 1 at the (reduced) Nyquist frequency
    shape = {
        "ram-lak": np.ones_like(f),
        "shepp-logan": np.sinc(f / 2),
        "cosine": np.cos(np.pi * f / 2),
        "hamming": 0.54 + 0.46 * np.cos(np.pi * f),
        "hann": 0.5 + 0.5 * np.cos(np.pi * f),
    }[window]
    result: np.ndarray = (ramp * np.where(f <= 1, shape, 0.0)).astype(np.float32)
    return result


def _displaced_weights(scan: ScanGeometry) -> np.ndarray:
    """Per column: 2 where only one side of the detector sees the line, 0..2 across the overlap, 1 if not displaced."""
    gamma = fan_angles(scan)
    position = np.tan(gamma) if scan.beam != "parallel" else _parallel_positions(scan)
    low, high = -float(position[0]), float(position[-1])
    short, long = min(low, high), max(low, high)
    if short <= 0 or short > DISPLACED * long:
        return np.ones(len(gamma))
    towards_long = position if high > low else -position
    overlap = np.clip(towards_long / short, -1, 1)
    weights: np.ndarray = 1 + np.sin(np.pi / 2 * overlap)
    return weights


def _parallel_positions(scan: ScanGeometry) -> np.ndarray:
    """Signed distance of each column's ray from the axis, view 0."""
    columns = scan.detector_shape[1]
    u = scan.u[0] / np.linalg.norm(scan.u[0])
    positions: np.ndarray = scan.detector[0] @ u + (np.arange(columns) - (columns - 1) / 2) * np.linalg.norm(scan.u[0])
    return positions


def _largest_gap(angles: np.ndarray, period: float) -> float:
    turned = np.sort(np.mod(angles, period))
    return float(np.diff(np.append(turned, turned[0] + period)).max())


def _typical(angles: np.ndarray, period: float) -> float:
    """The largest gap that still counts as closed: three times the mean gap between different angles.

    With few views that would take an open arc for a closed one: then a quarter of the period, or an even spacing.
    """
    mean = period / len(np.unique(np.round(np.mod(angles, period), 9)))
    return max(mean, min(3 * mean, period / 4)) * (1 + 1e-6)


def _cells(angles: np.ndarray, period: float) -> np.ndarray:
    """Half the gaps to both neighbours on a circle of `period`."""
    order = np.argsort(np.mod(angles, period), kind="stable")
    turned = np.mod(angles, period)[order]
    gaps = np.diff(np.append(turned, turned[0] + period))
    cells = np.empty(len(angles))
    cells[order] = (gaps + np.roll(gaps, 1)) / 2
    return cells


def _along_arc(angles: np.ndarray) -> np.ndarray:
    """Angles unrolled to start at 0 behind the largest gap of the circle."""
    turned = np.sort(np.mod(angles, 2 * np.pi))
    gaps = np.diff(np.append(turned, turned[0] + 2 * np.pi))
    start = turned[(int(gaps.argmax()) + 1) % len(turned)]
    unrolled: np.ndarray = np.mod(angles - start + 1e-12, 2 * np.pi)
    return unrolled


def _open_cells(beta: np.ndarray) -> np.ndarray:
    order = np.argsort(beta, kind="stable")
    gaps = np.diff(beta[order])
    cells = np.empty(len(beta))
    cells[order] = (np.append(gaps[:1], gaps) + np.append(gaps, gaps[-1:])) / 2
    return cells


def _arc_weight(beta: np.ndarray, end: float) -> np.ndarray:
    """c(beta): 1 inside [0, end], a cosine taper to (almost) 0 at its ends, 0 outside."""
    taper = min(TAPER, end / 4)
    distance = np.clip(np.minimum(beta, end - beta) / max(taper, 1e-12), 0, 1)
    inside = (beta >= -1e-9) & (beta <= end + 1e-9)
    weights: np.ndarray = np.where(inside, np.maximum(np.sin(np.pi / 2 * distance) ** 2, 1e-3), 0.0)
    return weights
