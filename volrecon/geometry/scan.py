"""The rays of a scan: twelve numbers a view, as in ASTRA's vector geometries."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np

from volrecon.errors import GeometryError
from volrecon.geometry.volume import VolumeGeometry, checked_size

Beam = Literal["cone", "fan", "parallel"]


@dataclass(frozen=True, eq=False)
class ScanGeometry:
    """A frozen scan: `detector_shape` (v, u) pixels and `vectors` (views, 12), float64, mm, world (x, y, z).

    The twelve numbers are source (for a parallel beam the ray direction), detector centre, u step, v step.
    Beams: "cone", one source point for all rows; "fan", a stack of fans, each detector row with its own source at its
    own height (source + row offset); "parallel", one direction for all pixels.

    Raises:
        GeometryError: no views, wrong sizes, NaN, degenerate pixels, rays that never leave the source.
    """

    beam: Beam
    detector_shape: tuple[int, int]
    vectors: np.ndarray

    def __post_init__(self) -> None:
        if self.beam not in get_args(Beam):
            raise GeometryError(f"beam {self.beam!r} is unknown; choose one of {', '.join(get_args(Beam))}")
        vectors = np.array(self.vectors, dtype=np.float64) + 0.0  # no -0.0: equal scans have equal fingerprints
        if vectors.ndim != 2 or vectors.shape[1] != 12:
            raise GeometryError(f"scan vectors have shape {vectors.shape}; expected (views, 12)")
        if len(vectors) == 0:
            raise GeometryError("the scan has no views; give at least one angle")
        if not np.isfinite(vectors).all():
            view = int(np.argwhere(~np.isfinite(vectors))[0, 0])
            raise GeometryError(f"the scan vectors of view {view} are not finite: {vectors[view]}")
        shape = tuple(int(n) for n in self.detector_shape)
        if len(shape) != 2 or min(shape) < 1:
            raise GeometryError(
                f"the detector's shape is {self.detector_shape}; give (rows v, columns u), each at least 1"
            )
        vectors.setflags(write=False)
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "detector_shape", shape)
        self._check_vectors()

    def _check_vectors(self) -> None:
        for name, size in zip(("v", "u"), self.pixel_vu_mm, strict=True):
            checked_size(f"detector pixel in {name}", size)
        direction = self.directions()
        if (np.linalg.norm(direction, axis=1) < 1e-9).any():
            raise GeometryError("source and detector centre coincide, or a ray direction is zero")
        normal = np.cross(self.u, self.v)
        cosine = (
            np.abs((normal * direction).sum(1)) / np.linalg.norm(normal, axis=1) / np.linalg.norm(direction, axis=1)
        )
        if not (cosine > 1e-3).all():
            view = int(np.argmin(np.nan_to_num(cosine)))
            raise GeometryError(f"the detector of view {view} is seen edge-on, or its u and v steps are parallel")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScanGeometry) and (
            self.beam == other.beam
            and self.detector_shape == other.detector_shape
            and np.array_equal(self.vectors, other.vectors)
        )

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @property
    def source(self) -> np.ndarray:
        """Source positions (views, 3); for a parallel beam the ray directions."""
        return self.vectors[:, 0:3]

    @property
    def detector(self) -> np.ndarray:
        """Detector centres (views, 3)."""
        return self.vectors[:, 3:6]

    @property
    def u(self) -> np.ndarray:
        """Steps from one column to the next (views, 3)."""
        return self.vectors[:, 6:9]

    @property
    def v(self) -> np.ndarray:
        """Steps from one row to the next (views, 3)."""
        return self.vectors[:, 9:12]

    @property
    def views(self) -> int:
        return len(self.vectors)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the projections, (v, angle, u)."""
        return self.detector_shape[0], self.views, self.detector_shape[1]

    @property
    def pixel_vu_mm(self) -> tuple[float, float]:
        """Pixel size (v, u) of the first view."""
        return float(np.linalg.norm(self.v[0])), float(np.linalg.norm(self.u[0]))

    @property
    def angles(self) -> np.ndarray:
        """Gantry angle of every view, radians in [0, 2 pi): 0 with the source at -y, counter-clockwise."""
        towards = self.source if self.beam != "parallel" else -self.source
        return np.mod(np.arctan2(towards[:, 1], towards[:, 0]) + np.pi / 2, 2 * np.pi)

    @property
    def source_to_object_mm(self) -> np.ndarray:
        """Distance of the source from the z axis, per view; infinite for a parallel beam."""
        if self.beam == "parallel":
            return np.full(self.views, np.inf)
        return np.hypot(self.source[:, 0], self.source[:, 1])

    @property
    def source_to_detector_mm(self) -> np.ndarray:
        """Distance of the source from the detector's plane, per view; infinite for a parallel beam."""
        if self.beam == "parallel":
            return np.full(self.views, np.inf)
        normal = np.cross(self.u, self.v)
        return np.abs((normal * self.directions()).sum(1)) / np.linalg.norm(normal, axis=1)

    @property
    def magnification(self) -> float:
        """Mean magnification of the rotation axis onto the detector; 1 for a parallel beam."""
        if self.beam == "parallel":
            return 1.0
        return float(np.mean(self.source_to_detector_mm / np.maximum(self.source_to_object_mm, 1e-9)))

    def directions(self) -> np.ndarray:
        """Vector of the central ray, source to detector centre (parallel: the ray direction), (views, 3)."""
        return self.source if self.beam == "parallel" else self.detector - self.source

    def rays(self) -> np.ndarray:
        """Every ray as an affine function of its pixel, world mm, float64 (views, 6, 3).

        Ray of (row, column): origin = r[0] + column r[1] + row r[2], direction = r[3] + column r[4] + row r[5].
        """
        rows, columns = self.detector_shape
        first = self.detector - (columns - 1) / 2 * self.u - (rows - 1) / 2 * self.v
        zero = np.zeros_like(first)
        if self.beam == "parallel":
            parts = (first, self.u, self.v, self.source, zero, zero)
        elif self.beam == "cone":
            parts = (self.source, zero, zero, first - self.source, self.u, self.v)
        else:
            lowest = self.source - (rows - 1) / 2 * self.v
            parts = (lowest, zero, self.v, first - lowest, self.u, zero)
        return np.stack(parts, axis=1)

    def index_rays(self, volume: VolumeGeometry) -> np.ndarray:
        """`rays` in the voxel-index coordinates (x, y, z) of a volume: voxel centres are whole numbers."""
        rays = self.rays() / volume.voxel_xyz_mm
        rays[:, 0] -= volume.origin_xyz_mm / volume.voxel_xyz_mm
        return np.ascontiguousarray(rays)

    def pixel_forms(self) -> np.ndarray:
        """Where a world point falls on the detector, float64 (views, 4, 4).

        With X = (x, y, z, 1) and the four rows f: column = f[0] X / f[2] X and row = f[1] X / f[3] X. For cone and
        fan, f[2] X is the depth of the point, 0 at the source and 1 on the detector; rows whose coordinate is not
        magnified (fan: row; parallel: both) have the constant 1 there.
        """
        rays = self.rays()
        columns_of = {"cone": (3, 4, 5), "fan": (3, 4, 2), "parallel": (3, 1, 2)}[self.beam]
        inverse = np.linalg.inv(np.stack([rays[:, k] for k in columns_of], axis=2))
        linear = np.concatenate([inverse, -inverse @ rays[:, 0, :, None]], axis=2)
        one = np.broadcast_to([0.0, 0.0, 0.0, 1.0], (self.views, 4))
        depth = linear[:, 0]
        below = {"cone": (depth, depth), "fan": (depth, one), "parallel": (one, one)}[self.beam]
        return np.stack([linear[:, 1], linear[:, 2], *below], axis=1)

    def select(self, views: np.ndarray | slice) -> Self:
        """The scan of some views (a slice, indices, or a boolean mask)."""
        return type(self)(self.beam, self.detector_shape, self.vectors[views])

    def crop_rows(self, start: int, stop: int) -> Self:
        """The scan of detector rows [start, stop)."""
        rows, columns = self.detector_shape
        if not 0 <= start < stop <= rows:
            raise GeometryError(f"rows [{start}, {stop}) are not inside a detector of {rows} rows")
        shift = (start + stop) / 2 - rows / 2
        vectors = self.vectors.copy()
        vectors[:, 3:6] += shift * self.v
        if self.beam == "fan":
            vectors[:, 0:3] += shift * self.v
        return type(self)(self.beam, (stop - start, columns), vectors)

    def refined(self, factor: int) -> Self:
        """The same detector with pixels `factor` times smaller in u and v.

        A fan stack keeps its rows: each row is one slice and has no extent to refine.
        """
        rows, columns = self.detector_shape
        vectors = self.vectors.copy()
        vectors[:, 6:9] /= factor
        if self.beam != "fan":
            rows *= factor
            vectors[:, 9:12] /= factor
        return type(self)(self.beam, (rows, columns * factor), vectors)

    def to_dict(self) -> dict[str, Any]:
        return {
            "beam": self.beam,
            "detector_shape_vu": list(self.detector_shape),
            "vectors_mm": self.vectors.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        try:
            return cls(data["beam"], tuple(data["detector_shape_vu"]), np.array(data["vectors_mm"], dtype=np.float64))
        except (KeyError, TypeError, ValueError) as error:
            raise GeometryError(f"not a scan geometry ({error}): {str(data)[:200]}") from error

    def to_json(self) -> str:
        """Exact: floats are written so that they read back bit for bit."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        try:
            data = json.loads(text)
        except ValueError as error:
            raise GeometryError(f"the geometry is not JSON: {error}") from error
        return cls.from_dict(data)

    @property
    def fingerprint(self) -> str:
        """sha256 of the JSON form."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
