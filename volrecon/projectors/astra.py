"""ASTRA as projector backends. The only file that imports astra.

`Astra2D` projects stacks of fans and parallel slices on the CPU, one slice at a time: an exactly matched pair.
`Astra3D` and `AstraFan3D` project on a GPU; their pair is not matched. They were written against ASTRA 2.5's documented
interface and wait for a GPU to be run on (bench/GPU.md).
"""

from dataclasses import replace
from typing import Any, Self
from weakref import finalize

import numpy as np

from volrecon.errors import ConfigError, GeometryError, ResourceError
from volrecon.geometry import ScanGeometry, VolumeGeometry
from volrecon.geometry.astra_dicts import scan_row_to_astra, scan_to_astra, volume_slice_to_astra, volume_to_astra
from volrecon.projectors.arrays import library, on_gpu
from volrecon.projectors.operator import Operator

ALIGNED = 1e-3  # rows may lie this part of a slice beside a slice's middle
LARGEST_SIDE = 2**14  # ASTRA's kernels misbehave beyond 16384 angles or pixels a side


def _astra() -> Any:
    try:
        import astra
        import astra.experimental
    except ImportError as error:
        raise ConfigError(f"the backend astra needs astra-toolbox: {error}. pip install astra-toolbox") from error
    return astra


class _RowByRow(Operator):
    """Base of the backends for stacks: every detector row is the projection of one slice."""

    _pairs: list[tuple[int, int]]

    def __init__(self, volume_geometry: VolumeGeometry, scan_geometry: ScanGeometry) -> None:
        super().__init__(volume_geometry, scan_geometry)
        self._restricted()

    def _restricted(self) -> None:
        slices = _slice_of_rows(self.volume_geometry, self.scan_geometry)
        self._pairs = [
            (row - self.rows.start, int(slices[row]) - self.slices.start)
            for row in range(self.rows.start, self.rows.stop)
            if self.slices.start <= slices[row] < self.slices.stop
        ]


class Astra2D(_RowByRow):
    """Fan stacks (`line_fanflat`) and parallel stacks (`linear`) on the CPU."""

    @classmethod
    def check(cls, volume: VolumeGeometry, scan: ScanGeometry) -> None:
        if scan.beam == "cone":
            raise ConfigError(
                "backend astra: ASTRA projects cone beams only with CUDA; use backend joseph on the CPU, or "
                "device='cuda' on a machine with an NVIDIA GPU"
            )
        _slice_of_rows(volume, scan)
        scan_row_to_astra(scan, 0)
        volume_slice_to_astra(volume)
        _astra()

    def _restricted(self) -> None:
        super()._restricted()
        astra = _astra()
        kind = "line_fanflat" if self.scan_geometry.beam == "fan" else "linear"
        row = scan_row_to_astra(self.active_scan, 0)  # all rows look the same from above
        self._projector = _Projector(astra.create_projector(kind, row, volume_slice_to_astra(self.volume_geometry)))

    def _forward(self, x: Any, y: Any) -> None:
        y[:] = 0
        sinogram = np.empty(y.shape[1:], np.float32)
        for row, index in self._pairs:
            # ASTRA's 2D images start at the largest y.
            self._projector.forward(np.ascontiguousarray(x[index, ::-1]), sinogram)
            y[row] = sinogram

    def _adjoint(self, y: Any, x: Any) -> None:
        x[:] = 0
        image = np.empty(x.shape[1:], np.float32)
        for row, index in self._pairs:
            self._projector.back(np.ascontiguousarray(y[row]), image)
            x[index] += image[::-1]


class _Projector:
    """An ASTRA 2D projector that is deleted with this object."""

    def __init__(self, number: int) -> None:
        self._number = number
        finalize(self, _astra().projector.delete, number).atexit = False

    def forward(self, image: np.ndarray, sinogram: np.ndarray) -> None:
        _astra().projector.direct_FP(self._number, image, out=sinogram)

    def back(self, sinogram: np.ndarray, image: np.ndarray) -> None:
        _astra().projector.direct_BP(self._number, sinogram, out=image)


def _slice_of_rows(volume: VolumeGeometry, scan: ScanGeometry) -> np.ndarray:
    """The slice in which each detector row lies, (rows,), also outside the volume."""
    rays = scan.rays()[0]
    heights = rays[0, 2] + np.arange(scan.detector_shape[0]) * rays[2, 2]
    position = (heights - volume.origin_xyz_mm[2]) / volume.voxel_zyx_mm[0]
    slices = np.round(position)
    if np.abs(position - slices).max() > ALIGNED:
        raise GeometryError(
            f"ASTRA serves stacks row by slice, but detector row {int(np.abs(position - slices).argmax())} lies "
            f"{np.abs(position - slices).max():.3g} slices beside the middle of one; choose slices as high as the row "
            f"pitch, or backend joseph"
        )
    return slices.astype(int)


class _Cuda(Operator):
    """Base of the backends on a GPU: torch CUDA and CuPy arrays stay where they are, by DLPack.

    `matched` is False: ASTRA's 3D forward projection is ray-driven, its backprojection voxel-driven.
    """

    matched = False

    @classmethod
    def check(cls, volume: VolumeGeometry, scan: ScanGeometry) -> None:
        if max(*scan.shape, *volume.shape) > LARGEST_SIDE:
            raise ConfigError(f"astra-cuda: a side of {max(*scan.shape, *volume.shape)} exceeds ASTRA's {LARGEST_SIDE}")
        # Without a driver ASTRA's 3D calls end the process (SIGFPE): this is the guard.
        if not _astra().use_cuda():
            raise ConfigError(
                "ASTRA on a GPU needs an NVIDIA GPU with its driver and none was found; on the CPU use backend joseph"
            )

    def _native(self, array: Any) -> Any:
        return _contiguous(array) if on_gpu(array) else super()._native(array)

    def _native_out(self, out: Any) -> Any:
        return out if on_gpu(out) else super()._native_out(out)


class Astra3D(_Cuda):
    """Cone and parallel beams on a GPU; a volume of one slice uses ASTRA's 2D weighting of the backprojection."""

    _projector: "_Projector3D | None"

    def __init__(self, volume_geometry: VolumeGeometry, scan_geometry: ScanGeometry) -> None:
        super().__init__(volume_geometry, scan_geometry)
        self._restricted()

    @classmethod
    def check(cls, volume: VolumeGeometry, scan: ScanGeometry) -> None:
        if scan.beam == "fan":
            raise ConfigError("backend astra-cuda does not serve fan stacks; use astra-cuda-fan")
        super().check(volume, scan)

    def _restricted(self) -> None:
        self._projector = None
        if self.rows.stop > self.rows.start:
            volume = self.volume_geometry.slab(self.slices.start, self.slices.stop)
            scan = self.active_scan.crop_rows(self.rows.start, self.rows.stop)
            self._projector = _Projector3D.of(volume, scan)

    def _forward(self, x: Any, y: Any) -> None:
        if self._projector is not None:
            self._projector.forward(x, y)

    def _adjoint(self, y: Any, x: Any) -> None:
        if self._projector is None:
            x[:] = 0
        else:
            self._projector.back(y, x)


class AstraFan3D(_RowByRow, _Cuda):
    """Fan stacks on a GPU: every row a cone beam of one row through a volume of one slice."""

    @classmethod
    def check(cls, volume: VolumeGeometry, scan: ScanGeometry) -> None:
        if scan.beam != "fan":
            raise ConfigError(f"backend astra-cuda-fan serves fan stacks only; this is a {scan.beam} beam")
        _slice_of_rows(volume, scan)
        super().check(volume, scan)

    def _restricted(self) -> None:
        super()._restricted()
        row = self.active_scan.crop_rows(0, 1)
        slices = _slice_of_rows(self.volume_geometry, self.scan_geometry)
        vectors = row.vectors.copy()
        # A row as high as the magnified slice makes ASTRA's 3D weight the 2D one (the one-slice trap).
        dz = self.volume_geometry.voxel_zyx_mm[0]
        vectors[:, 9:12] *= row.magnification * dz / np.linalg.norm(row.v, axis=1, keepdims=True)
        z = self.volume_geometry.origin_xyz_mm[2] + slices[0] * dz
        one = replace(
            self.volume_geometry,
            shape=(1, *self.volume_geometry.shape[1:]),
            centre_xyz_mm=(*self.volume_geometry.centre_xyz_mm[:2], float(z)),
        )
        self._projector = _Projector3D.of(one, ScanGeometry("cone", row.detector_shape, vectors))

    def _forward(self, x: Any, y: Any) -> None:
        y[:] = 0
        for row, index in self._pairs:
            self._projector.forward(x[index : index + 1], y[row : row + 1])

    def _adjoint(self, y: Any, x: Any) -> None:
        x[:] = 0
        for row, index in self._pairs:
            self._projector.back(y[row : row + 1], x[index : index + 1])


class _Projector3D:
    """An ASTRA 3D projector that raises where ASTRA is silent, and is deleted with this object."""

    def __init__(self, number: int) -> None:
        self._number = number
        finalize(self, _astra().projector3d.delete, number).atexit = False

    @classmethod
    def of(cls, volume: VolumeGeometry, scan: ScanGeometry) -> Self:
        options = {"ProjectionKernel": "2d_weighting"} if volume.shape[0] == 1 and scan.shape[0] > 1 else {}
        return cls(_astra().create_projector("cuda3d", scan_to_astra(scan), volume_to_astra(volume), options=options))

    def forward(self, volume: Any, projections: Any) -> None:
        self._call(_astra().experimental.direct_FP3D, volume, projections, projections)

    def back(self, projections: Any, volume: Any) -> None:
        self._call(_astra().experimental.direct_BP3D, volume, projections, volume)

    def _call(self, kernel: Any, volume: Any, projections: Any, target: Any) -> None:
        # A failed call raises nothing and leaves its output as it was: make that visible.
        target[:] = float("nan")
        _synchronise(target)
        kernel(self._number, volume, projections)
        _synchronise(target)
        first = float(target.reshape(-1)[0])
        if first != first:
            raise ResourceError(
                f"ASTRA failed without an error on a volume of {tuple(volume.shape)} and projections of "
                f"{tuple(projections.shape)}, most likely for lack of GPU memory; use smaller slabs"
            )


def _contiguous(array: Any) -> Any:
    """A GPU array as C-contiguous float32 of its own library."""
    if library(array) == "torch":
        if array.requires_grad:
            raise ConfigError("the tensor requires grad; use volrecon.projectors.autograd.differentiable(A)")
        return array.float().contiguous()
    return array.astype("float32", order="C", copy=False)


def _synchronise(array: Any) -> None:
    """ASTRA ignores the stream of a DLPack array: wait for what was queued there."""
    if not on_gpu(array):
        return
    if library(array) == "torch":
        import torch

        torch.cuda.current_stream(array.device).synchronize()
    else:
        array.device.synchronize()
