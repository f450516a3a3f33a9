"""ASTRA as projector backends. The only file that imports astra.

`Astra2D` projects stacks of fans and parallel slices on the CPU, one slice at a time: an exactly matched pair.
`Astra3D` projects cone and parallel beams on a GPU; its pair is not matched (ray-driven forward, voxel-driven back).
"""

from typing import Any

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


class Astra2D(Operator):
    """Fan stacks (`line_fanflat`) and parallel stacks (`linear`) on the CPU; every detector row is one slice."""

    def __init__(self, volume_geometry: VolumeGeometry, scan_geometry: ScanGeometry) -> None:
        super().__init__(volume_geometry, scan_geometry)
        self._restricted()

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
        astra = _astra()
        projector = "line_fanflat" if self.scan_geometry.beam == "fan" else "linear"
        row = scan_row_to_astra(self.active_scan, 0)  # all rows look the same from above
        self._projector = _Projector(
            astra, astra.create_projector(projector, row, volume_slice_to_astra(self.volume_geometry))
        )
        slices = _slice_of_rows(self.volume_geometry, self.scan_geometry)
        self._pairs = [
            (row - self.rows.start, int(slices[row]) - self.slices.start)
            for row in range(self.rows.start, self.rows.stop)
            if self.slices.start <= slices[row] < self.slices.stop
        ]

    def _forward(self, x: Any, y: Any) -> None:
        y[:] = 0
        sinogram = np.empty(y.shape[1:], np.float32)
        for row, index in self._pairs:
            image = np.ascontiguousarray(x[index, ::-1])  # ASTRA's 2D images start at the largest y
            self._projector.forward(image, sinogram)
            y[row] = sinogram

    def _adjoint(self, y: Any, x: Any) -> None:
        x[:] = 0
        image = np.empty(x.shape[1:], np.float32)
        for row, index in self._pairs:
            self._projector.back(np.ascontiguousarray(y[row]), image)
            x[index] += image[::-1]


class _Projector:
    """An ASTRA 2D projector that is deleted with this object."""

    def __init__(self, astra: Any, number: int) -> None:
        self._astra, self._number = astra, number

    def forward(self, image: np.ndarray, sinogram: np.ndarray) -> None:
        self._astra.projector.direct_FP(self._number, image, out=sinogram)

    def back(self, sinogram: np.ndarray, image: np.ndarray) -> None:
        self._astra.projector.direct_BP(self._number, sinogram, out=image)

    def __del__(self) -> None:
        self._astra.projector.delete(self._number)


def _slice_of_rows(volume: VolumeGeometry, scan: ScanGeometry) -> np.ndarray:
    """The slice in which each detector row lies, (rows,), also outside the volume."""
    rays = scan.rays()[0]
    heights = rays[0, 2] + np.arange(scan.detector_shape[0]) * rays[2, 2]
    position = (heights - volume.origin_xyz_mm[2]) / volume.voxel_zyx_mm[0]
    slices = np.round(position)
    if np.abs(position - slices).max() > ALIGNED:
        raise GeometryError(
            f"backend astra: detector row {int(np.abs(position - slices).argmax())} lies {np.abs(position - slices).max():.3g} "
            f"slices beside the middle of a slice; choose slices as high as the row pitch, or backend joseph"
        )
    return slices.astype(int)


class Astra3D(Operator):
    """Cone and parallel beams on a GPU by DLPack: torch CUDA and CuPy arrays are used where they are.

    `matched` is False: ASTRA's 3D backprojection is voxel-driven. A fan stack is served as ASTRA's own 3D kernels
    serve it nowhere, so it is refused here; a volume of one slice uses the 2D weighting of the backprojection.
    """

    matched = False

    def __init__(self, volume_geometry: VolumeGeometry, scan_geometry: ScanGeometry) -> None:
        super().__init__(volume_geometry, scan_geometry)
        self._restricted()

    @classmethod
    def check(cls, volume: VolumeGeometry, scan: ScanGeometry) -> None:
        if scan.beam == "fan":
            raise ConfigError("backend astra-cuda does not serve fan stacks; use joseph, or astra on the CPU")
        if max(*scan.shape, *volume.shape) > LARGEST_SIDE:
            raise ConfigError(f"astra-cuda: a side of {max(*scan.shape, *volume.shape)} exceeds ASTRA's {LARGEST_SIDE}")
        # Without a driver ASTRA's 3D calls end the process (SIGFPE): this is the guard.
        if not _astra().use_cuda():
            raise ConfigError(
                "backend astra-cuda needs an NVIDIA GPU with its driver and none was found; on the CPU use backend joseph"
            )

    def _restricted(self) -> None:
        astra = _astra()
        volume = self.volume_geometry.slab(self.slices.start, self.slices.stop)
        self._projector: Any = None
        if self.rows.stop > self.rows.start:
            scan = self.active_scan.crop_rows(self.rows.start, self.rows.stop)
            options = {"ProjectionKernel": "2d_weighting"} if volume.shape[0] == 1 else {}
            number = astra.create_projector("cuda3d", scan_to_astra(scan), volume_to_astra(volume), options=options)
            self._projector = _Projector3D(astra, number)

    def _native(self, array: Any) -> Any:
        return _contiguous(array) if on_gpu(array) else super()._native(array)

    def _native_out(self, out: Any) -> Any:
        return out if on_gpu(out) else super()._native_out(out)

    def _forward(self, x: Any, y: Any) -> None:
        if self._projector is not None:
            self._call(self._projector.forward, x, y)

    def _adjoint(self, y: Any, x: Any) -> None:
        x[:] = 0
        if self._projector is not None:
            self._call(self._projector.back, y, x)

    def _call(self, kernel: Any, source: Any, target: Any) -> None:
        # A failed call is silent and leaves the output as it was: make that visible.
        target[:] = float("nan")
        _synchronise(source)
        kernel(source, target)
        _synchronise(target)
        if bool(target.reshape(-1)[:1] != target.reshape(-1)[:1]):
            raise ResourceError(
                f"ASTRA failed without an error on a volume of {self.domain_shape} and projections of "
                f"{self.range_shape}, most likely for lack of GPU memory; use smaller slabs"
            )


class _Projector3D(_Projector):
    def forward(self, volume: Any, projections: Any) -> None:
        self._astra.experimental.direct_FP3D(self._number, volume, projections)

    def back(self, projections: Any, volume: Any) -> None:
        self._astra.experimental.direct_BP3D(self._number, volume, projections)

    def __del__(self) -> None:
        self._astra.projector3d.delete(self._number)


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
