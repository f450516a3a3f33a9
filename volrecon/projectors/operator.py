"""The linear operator of a scan: what every projector backend is, and what may be asked of it.

A backend is one class with two methods: `_forward` and `_adjoint` write into arrays of the right shape. Everything
else - shapes, blocks, array libraries, the transpose, the norm - is here.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np

from volrecon.errors import ConfigError, DataError
from volrecon.geometry import ScanGeometry, VolumeGeometry
from volrecon.projectors.arrays import empty_like_library, host_output, host_view
from volrecon.volume import RamSpace


class Operator(ABC):
    """Forward projection `A(x)` and backprojection `A.T(y)` of one volume grid and one scan.

    `x` is (z, y, x) attenuation, `y` (v, angle, u) line integrals in x's unit times mm; float32. NumPy, torch and
    CuPy arrays come back as the same library's arrays. Other dtypes and memory orders are converted, never modified.

    Attributes:
        volume_geometry, scan_geometry: of the whole, also after `restrict`.
        slices, rows: the slab [start, stop) and its shadow on the detector, in the whole's indices.
        views: indices of the views, or None for all.
        matched: whether `A.T` is the exact transpose of `A` (to rounding).
    """

    matched: ClassVar[bool] = True

    def __init__(self, volume_geometry: VolumeGeometry, scan_geometry: ScanGeometry) -> None:
        self.check(volume_geometry, scan_geometry)
        self.volume_geometry = volume_geometry
        self.scan_geometry = scan_geometry
        self.slices = slice(0, volume_geometry.shape[0])
        self.rows = slice(0, scan_geometry.detector_shape[0])
        self.views: np.ndarray | None = None
        self._norm: dict[str, float] = {}  # shared by every restriction

    @classmethod
    @abstractmethod
    def check(cls, volume: VolumeGeometry, scan: ScanGeometry) -> None:
        """Raise a ConfigError that says why this backend cannot serve the geometries on this machine."""

    @abstractmethod
    def _forward(self, x: Any, y: Any) -> None:
        """Write the projections of `x` (domain_shape) into `y` (range_shape); C-contiguous float32."""

    @abstractmethod
    def _adjoint(self, y: Any, x: Any) -> None:
        """Write the backprojection of `y` into `x`."""

    @property
    def domain_shape(self) -> tuple[int, int, int]:
        return self.slices.stop - self.slices.start, *self.volume_geometry.shape[1:]

    @property
    def range_shape(self) -> tuple[int, int, int]:
        views = self.scan_geometry.views if self.views is None else len(self.views)
        return self.rows.stop - self.rows.start, views, self.scan_geometry.detector_shape[1]

    @property
    def active_scan(self) -> ScanGeometry:
        """The scan of this operator's views, all rows."""
        return self.scan_geometry if self.views is None else self.scan_geometry.select(self.views)

    def __call__(self, x: Any, out: Any = None) -> Any:
        """Project `x` of `domain_shape`; the result, or `out` filled, has `range_shape`."""
        return self._apply(self._forward, x, self.domain_shape, self.range_shape, out, "volume")

    @property
    def T(self) -> Transpose:
        return Transpose(self)

    def restrict(
        self, slices: slice | None = None, views: slice | np.ndarray | None = None, rows: slice | None = None
    ) -> Self:
        """The operator of a slab, a block of views and a block of detector rows, all in the whole's indices.

        Its range is the slab's shadow: rows `.rows` of the detector, or the part of `rows` that lies in it. Slab
        results are added into those rows; the sum over slabs is the whole. The norm stays the whole's.
        """
        part = copy.copy(self)
        if views is not None:
            part.views = np.arange(self.scan_geometry.views)[views]
        if slices is not None:
            start, stop, step = slices.indices(self.volume_geometry.shape[0])
            if step != 1 or stop <= start:
                raise ConfigError(f"slab {slices} of {self.volume_geometry.shape[0]} slices is empty or has a step")
            part.slices = slice(start, stop)
            part.rows = shadow_rows(part.volume_geometry, part.scan_geometry, part.slices)
        if rows is not None:
            start, stop, step = rows.indices(self.scan_geometry.detector_shape[0])
            if step != 1:
                raise ConfigError(f"detector rows {rows} have a step; give consecutive ones")
            first = min(max(start, part.rows.start), part.rows.stop)
            part.rows = slice(first, max(first, min(stop, part.rows.stop)))
        part._restricted()
        return part

    def _restricted(self) -> None:  # noqa: B027 - most backends keep nothing
        """Called after `restrict`: recompute what a backend keeps for its block."""

    def norm(self) -> float:
        """Largest singular value of the whole operator, by Lanczos with this very pair (`StreamedOperator`); cached."""
        from volrecon.projectors.streamed import StreamedOperator  # built on this class

        if "norm" not in self._norm:
            whole = copy.copy(self)
            whole.slices = slice(0, self.volume_geometry.shape[0])
            whole.views = None
            whole.rows = slice(0, self.scan_geometry.detector_shape[0])
            whole._restricted()
            self._norm["norm"] = StreamedOperator(whole, RamSpace()).norm()
        return self._norm["norm"]

    def _apply(
        self, kernel: Any, array: Any, shape: tuple[int, ...], out_shape: tuple[int, ...], out: Any, what: str
    ) -> Any:
        if tuple(array.shape) != shape:
            raise DataError(f"the {what} has shape {tuple(array.shape)}; this operator needs {shape}")
        native = self._native(array)
        if out is None:
            out = empty_like_library(array, out_shape)
        elif tuple(out.shape) != out_shape:
            raise DataError(f"out has shape {tuple(out.shape)}; the result has {out_shape}")
        kernel(native, self._native_out(out))
        return out

    def _native(self, array: Any) -> Any:
        """The array as this backend reads it; here a C-contiguous float32 NumPy array on the host."""
        return host_view(array)

    def _native_out(self, out: Any) -> Any:
        return host_output(out)


class Transpose:
    """`A.T`: backprojection; its own transpose is `A`."""

    def __init__(self, operator: Operator) -> None:
        self.T = operator

    def __call__(self, y: Any, out: Any = None) -> Any:
        A = self.T
        return A._apply(A._adjoint, y, A.range_shape, A.domain_shape, out, "set of projections")


def shadow_rows(volume: VolumeGeometry, scan: ScanGeometry, slices: slice) -> slice:
    """Detector rows that rays through a slab, one voxel of margin included, can hit; empty if none."""
    rows = scan.detector_shape[0]
    corners = np.array(
        [
            (x, y, z)
            for x in (-1, volume.shape[2])
            for y in (-1, volume.shape[1])
            for z in (slices.start - 1, slices.stop)
        ],
        dtype=np.float64,
    )
    points = np.concatenate([volume.origin_xyz_mm + corners * volume.voxel_xyz_mm, np.ones((8, 1))], axis=1)
    forms = scan.pixel_forms()
    below = forms[:, 3] @ points.T
    if (below <= 0).any():  # a corner behind the source: no bound
        return slice(0, rows)
    row = (forms[:, 1] @ points.T) / below
    start = int(np.clip(np.floor(row.min()) - 1, 0, rows))
    stop = int(np.clip(np.ceil(row.max()) + 2, start, rows))
    return slice(start, stop)


def dot_test(A: Operator, seed: int = 0) -> float:
    """|<Ax, y> - <x, A'y>| / (norm(Ax) norm(y)) for one random pair, sums in float64: 0 for a matched pair."""
    rng = np.random.Generator(np.random.Philox(seed))
    x = rng.standard_normal(A.domain_shape, dtype=np.float32)
    y = rng.standard_normal(A.range_shape, dtype=np.float32)
    projected = np.asarray(A(x), np.float64)
    back = np.asarray(A.T(y), np.float64)
    scale = np.linalg.norm(projected) * np.linalg.norm(y.astype(np.float64))
    return float(abs(np.vdot(projected, y) - np.vdot(x, back)) / scale) if scale else 0.0
