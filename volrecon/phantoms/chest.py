"""Lungs with airways and vessels, heart, great vessels."""

from dataclasses import dataclass

import numpy as np

from volrecon.phantoms.canvas import Canvas, Ellipsoid, Place, Tissue, smooth_max
from volrecon.phantoms.torso import Diaphragm, Torso
from volrecon.phantoms.tubes import Tubes, grow, path
from volrecon.phantoms.vessels import AIR, AIRWAY_WALL, BLOOD, Vessels

LUNG = Tissue(-862, 34)
LUNG_VESSEL = Tissue(60, 5)
MYOCARDIUM = Tissue(98, 8)
INFARCT = Tissue(72, 8)
PERICARDIAL_FAT = Tissue(-92, 8)
FISSURE = Tissue(-500, 10)
NODULE = Tissue(35, 10)

VESSEL_TARGETS = 420
AIRWAY_TARGETS = 36


@dataclass(frozen=True)
class Lung:
    """One lung: `side` is -1 for the patient's right and +1 for the left."""

    side: int
    torso: Torso
    diaphragm: Diaphragm
    heart: Ellipsoid
    vessels: Tubes
    airways: Tubes
    nodules: tuple[Ellipsoid, ...]

    @classmethod
    def draw(
        cls, rng: np.random.Generator, side: int, torso: Torso, diaphragm: Diaphragm, heart: Ellipsoid
    ) -> "Lung":
        nothing = path(np.zeros((2, 3)) + [[0.0], [1.0]], 0.0, 1)
        hollow = cls(side, torso, diaphragm, heart, nothing, nothing, ())
        hilum = np.array([side * 0.15, 0.05, 0.33])
        vessels = grow(hilum, hollow._points(rng, VESSEL_TARGETS, 0.012), 0.0027, rng)
        airways = grow(hilum + [0, 0.02, 0.04], hollow._points(rng, AIRWAY_TARGETS, 0.09), 0.0065, rng)
        spots = hollow._points(rng, 3, 0.05)
        nodules = tuple(Ellipsoid.make(spot, rng.uniform(0.009, 0.022, 3)) for spot in spots)
        return cls(side, torso, diaphragm, heart, vessels, airways, nodules)

    def distance(self, at: Place) -> np.ndarray:
        """Signed distance to the pleura."""
        spine = np.hypot(at.x, at.y - self.torso.spine_y(at.z)) - self.torso.spine_radius(at.z) - 0.03
        mediastinum = 0.075 + 0.03 * np.clip(np.abs(at.z - 0.4) * 4, 0, 1.5) - self.side * at.x
        apex = at.z - (0.75 - 1.1 * ((at.x - self.side * 0.26) ** 2 + (at.y - 0.02) ** 2))
        inner = smooth_max(mediastinum, -np.minimum(spine, self.heart.distance(at) - 0.012), 0.05)
        outer = smooth_max(at.wall + 0.008, smooth_max(apex, -self.diaphragm.below(at), 0.03), 0.05)
        return smooth_max(inner, outer, 0.06)

    def _points(self, rng: np.random.Generator, count: int, margin: float) -> np.ndarray:
        """`count` points (x, y, z) inside the lung, at least `margin` below its surface."""
        found = np.empty((0, 3))
        while len(found) < count:
            tries = rng.uniform((0.03, -0.5, -0.4), (0.75, 0.5, 0.75), (8 * count, 3)) * [self.side, 1, 1]
            inside = self.distance(self.torso.place(*tries.T)) < -margin
            found = np.concatenate([found, tries[inside]])
        return found[:count]

    def paint(self, canvas: Canvas) -> None:
        ends = sorted((self.side * 0.02, self.side * 0.8))
        window = canvas.window(np.array([ends[0], -0.6, -0.5]), np.array([ends[1], 0.6, 0.8]))
        if window is None:
            return
        inside = window.edge(self.distance(window.place))
        if not inside.any():
            return
        at = window.place
        window.paint(inside, Tissue(LUNG.hu + 60 * np.clip(at.y + 0.1, -0.4, 0.5), LUNG.texture))
        oblique = 0.8 * (at.z - 0.22) - 0.6 * at.y - 0.12 * np.sin(4 * at.x)
        window.paint(0.7 * inside * window.sheet(oblique, 0.004), FISSURE)
        window.paint(inside * self.vessels.coverage(window), LUNG_VESSEL)
        window.paint(inside * self.airways.widened(1.25, 0.004).coverage(window), AIRWAY_WALL)
        window.paint(inside * self.airways.coverage(window), AIR)
        for nodule in self.nodules:
            nodule.paint(window, NODULE)


@dataclass(frozen=True)
class Heart:
    """Pericardial fat, muscle, four chambers, an infarct of low contrast."""

    outer: Ellipsoid
    chambers: tuple[Ellipsoid, ...]
    infarct: Ellipsoid

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Heart":
        centre = np.array([0.1, -0.17, 0.2]) + rng.uniform(-0.015, 0.015, 3)
        size = rng.uniform(0.93, 1.05)
        outer = Ellipsoid.make(centre, np.array([0.27, 0.19, 0.21]) * size, (0, 22, -32))
        chambers = (
            Ellipsoid.make(outer.point((0.28, 0.38, -0.1)), np.array([0.15, 0.075, 0.09]) * size, (0, 25, -30)),
            Ellipsoid.make(outer.point((0.05, -0.48, -0.2)), np.array([0.17, 0.06, 0.1]) * size, (0, 20, -22)),
            Ellipsoid.make(outer.point((-0.5, 0.5, 0.25)), np.array([0.09, 0.07, 0.08]) * size, (0, 0, 0)),
            Ellipsoid.make(outer.point((-0.62, -0.2, 0.1)), np.array([0.075, 0.085, 0.1]) * size, (0, 0, 20)),
        )
        infarct = Ellipsoid.make(outer.point((0.72, 0.1, -0.2)), (0.04, 0.05, 0.06), (0, 0, -30))
        return cls(outer, chambers, infarct)

    def paint(self, canvas: Canvas) -> None:
        self.outer.grown(0.012).paint(canvas, PERICARDIAL_FAT)
        self.outer.grown(-0.012).paint(canvas, MYOCARDIUM)
        self.infarct.paint(canvas, INFARCT)
        for chamber in self.chambers:
            chamber.paint(canvas, BLOOD)


@dataclass(frozen=True)
class Chest:
    """Both lungs, heart and great vessels."""

    lungs: tuple[Lung, ...]
    heart: Heart
    vessels: Vessels

    @classmethod
    def draw(cls, rng: np.random.Generator, torso: Torso, diaphragm: Diaphragm) -> "Chest":
        heart = Heart.draw(rng)
        lungs = tuple(Lung.draw(rng, side, torso, diaphragm, heart.outer) for side in (-1, 1))
        return cls(lungs, heart, Vessels.draw(rng, torso))

    def paint(self, canvas: Canvas) -> None:
        for lung in self.lungs:
            lung.paint(canvas)
        self.heart.paint(canvas)
        self.vessels.paint(canvas)
