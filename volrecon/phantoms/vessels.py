"""The pipes of the trunk: aorta, caval veins, pulmonary arteries, trachea and bronchi, esophagus."""

from dataclasses import dataclass

import numpy as np

from volrecon.phantoms.canvas import Canvas, Tissue
from volrecon.phantoms.torso import Torso
from volrecon.phantoms.tubes import Tubes, path

AIR = Tissue(-1000, 0)
BLOOD = Tissue(148, 5)
AIRWAY_WALL = Tissue(10, 8)
ESOPHAGUS = Tissue(45, 8)

Landmarks = tuple[tuple[float, float, float, float], ...]
"""x, distance behind the front of the spine (negative: before it), z, radius."""

AORTA: Landmarks = (
    (0.02, -0.235, 0.3, 0.07),
    (-0.03, -0.26, 0.42, 0.068),
    (0.0, -0.18, 0.535, 0.063),
    (0.07, -0.075, 0.53, 0.06),
    (0.085, -0.045, 0.38, 0.057),
    (0.075, -0.045, 0.15, 0.054),
    (0.06, -0.045, -0.1, 0.052),
    (0.04, -0.045, -0.4, 0.046),
    (0.025, -0.045, -0.62, 0.042),
)
ILIACS: tuple[Landmarks, ...] = tuple(
    ((0.025, -0.045, -0.61, 0.03), (side * 0.11, -0.04, -0.74, 0.03), (side * 0.24, -0.06, -0.9, 0.028))
    for side in (-1, 1)
)
LOWER_CAVA: Landmarks = (
    (-0.1, -0.2, 0.24, 0.045),
    (-0.09, -0.1, 0.08, 0.048),
    (-0.08, -0.05, -0.3, 0.05),
    (-0.06, -0.05, -0.66, 0.045),
)
UPPER_CAVA: Landmarks = ((-0.11, -0.21, 0.26, 0.04), (-0.1, -0.22, 0.45, 0.04), (-0.1, -0.18, 0.6, 0.036))
CAROTIDS: tuple[Landmarks, ...] = tuple(
    ((side * 0.05, -0.16, 0.55, 0.026), (side * 0.1, -0.11, 0.68, 0.023), (side * 0.09, -0.03, 0.9, 0.02))
    for side in (-1, 1)
)
PULMONARY_TRUNK: Landmarks = ((0.06, -0.31, 0.3, 0.06), (0.07, -0.25, 0.4, 0.06), (0.08, -0.16, 0.4, 0.05))
PULMONARY_ARTERIES: tuple[Landmarks, ...] = tuple(
    ((0.07, -0.2, 0.4, 0.045), (side * 0.1, -0.12, 0.37, 0.04), (side * 0.18, -0.07, 0.33, 0.026)) for side in (-1, 1)
)
TRACHEA: Landmarks = (
    (0.0, -0.06, 0.93, 0.042),
    (0.0, -0.07, 0.75, 0.042),
    (0.01, -0.07, 0.58, 0.042),
    (0.0, -0.065, 0.45, 0.04),
)
BRONCHI: tuple[Landmarks, ...] = tuple(
    ((0.0, -0.065, 0.45, 0.036), (side * 0.08, -0.06, 0.4, 0.032), (side * 0.17, -0.05, 0.36, 0.024))
    for side in (-1, 1)
)
GULLET: Landmarks = (
    (0.02, -0.01, 0.93, 0.026),
    (0.03, -0.02, 0.7, 0.028),
    (0.01, -0.02, 0.45, 0.03),
    (0.0, -0.05, 0.2, 0.03),
    (0.1, -0.06, 0.02, 0.034),
)


@dataclass(frozen=True)
class Vessels:
    """The pipes of one patient."""

    blood: tuple[Tubes, ...]
    airways: tuple[Tubes, ...]
    esophagus: Tubes

    @classmethod
    def draw(cls, rng: np.random.Generator, torso: Torso) -> "Vessels":
        def pipe(landmarks: Landmarks) -> Tubes:
            x, behind, z, radius = np.array(landmarks).T
            y = torso.spine_y(z) - torso.spine_radius(z) + behind
            bend = rng.uniform(-0.008, 0.008, (len(x), 3))
            return path(np.stack([x, y, z], axis=1) + bend, radius * rng.uniform(0.93, 1.07), 6 * len(x))

        blood = (AORTA, *ILIACS, LOWER_CAVA, UPPER_CAVA, *CAROTIDS, PULMONARY_TRUNK, *PULMONARY_ARTERIES)
        airways = (TRACHEA, *BRONCHI)
        return cls(tuple(map(pipe, blood)), tuple(map(pipe, airways)), pipe(GULLET))

    def paint(self, canvas: Canvas) -> None:
        self.esophagus.paint(canvas, ESOPHAGUS)
        for tube in self.blood:
            tube.paint(canvas, BLOOD)
        for tube in self.airways:
            tube.widened(1.0, 0.009).paint(canvas, AIRWAY_WALL)
        for tube in self.airways:
            tube.paint(canvas, AIR)
