"""Lungs with airways and vessels, heart, great vessels."""

from dataclasses import dataclass

import numpy as np

from volrecon.phantoms.canvas import Canvas, Ellipsoid, Place, Tissue, Triple, smooth_max
from volrecon.phantoms.torso import Diaphragm, Torso, points_inside
from volrecon.phantoms.tubes import Tubes, grow
from volrecon.phantoms.vessels import AIR, AIRWAY_WALL, BLOOD, Vessels

LUNG = Tissue(-862, 38)
LUNG_VESSEL = Tissue(60, 5)
MYOCARDIUM = Tissue(98, 8)
INFARCT = Tissue(72, 8)
PERICARDIAL_FAT = Tissue(-92, 8)
FISSURE = Tissue(-500, 10)
NODULE = Tissue(35, 10)

VESSEL_TARGETS, VESSEL_TIP = 600, 0.0032
AIRWAY_TARGETS, AIRWAY_TIP = 30, 0.006

HEART_SEMI = (0.29, 0.21, 0.23)
CHAMBERS: tuple[tuple[Triple, Triple, Triple], ...] = (
    ((0.28, 0.38, -0.1), (0.15, 0.075, 0.09), (0, 25, -30)),
    ((0.05, -0.48, -0.2), (0.17, 0.06, 0.1), (0, 20, -22)),
    ((-0.5, 0.5, 0.25), (0.09, 0.07, 0.08), (0, 0, 0)),
    ((-0.62, -0.2, 0.1), (0.075, 0.085, 0.1), (0, 0, 20)),
)
"""Left and right ventricle and atrium: place in fractions of the heart, half-lengths, angles in degrees."""


@dataclass(frozen=True)
class Pleura:
    """The surface of one lung: `side` is -1 for the patient's right and +1 for the left."""

    side: int
    torso: Torso
    diaphragm: Diaphragm
    heart: Ellipsoid

    def bounds(self) -> tuple[Triple, Triple]:
        """Low and high corner of a box about the lung."""
        near, far = sorted((self.side * 0.02, self.side * 0.82))
        return (near, -0.6, -0.45), (far, 0.6, 0.78)

    def distance(self, at: Place) -> np.ndarray:
        """Signed distance: inside the wall, above the diaphragm, beside spine, heart and mediastinum."""
        radius, behind = self.torso.spine_radius(at.z), at.y - self.torso.spine_y(at.z)
        spine = np.minimum(np.hypot(at.x, behind) - radius - 0.03, np.hypot(at.x, behind - radius) - 0.16)
        mediastinum = 0.075 + 0.03 * np.clip(np.abs(at.z - 0.4) * 4, 0, 1.5) - self.side * at.x
        apex = at.z - (0.75 - 1.1 * ((at.x - self.side * 0.26) ** 2 + (at.y - 0.02) ** 2))
        inner = smooth_max(mediastinum, -np.minimum(spine, self.heart.distance(at) - 0.012), 0.05)
        outer = smooth_max(at.wall + 0.008, smooth_max(apex, -self.diaphragm.below(at), 0.03), 0.05)
        return smooth_max(inner, outer, 0.06)


@dataclass(frozen=True)
class Lung:
    """Parenchyma with its fissure, vessels and airways that branch from the hilum, a few nodules."""

    pleura: Pleura
    vessels: Tubes
    airways: Tubes
    nodules: tuple[Ellipsoid, ...]

    @classmethod
    def draw(cls, rng: np.random.Generator, pleura: Pleura) -> "Lung":
        def points(count: int, margin: float) -> np.ndarray:
            return points_inside(rng, pleura.torso, pleura.distance, pleura.bounds(), count, margin)

        hilum = np.array([pleura.side * 0.15, 0.05, 0.33])
        vessels = grow(hilum, points(VESSEL_TARGETS, 0.012), VESSEL_TIP, rng)
        airways = grow(hilum + np.array([0, 0.02, 0.04]), points(AIRWAY_TARGETS, 0.09), AIRWAY_TIP, rng)
        nodules = tuple(Ellipsoid.make(spot, rng.uniform(0.009, 0.022, 3)) for spot in points(3, 0.05))
        return cls(pleura, vessels, airways, nodules)

    def paint(self, canvas: Canvas) -> None:
        window = canvas.window(*np.array(self.pleura.bounds()))
        if window is None:
            return
        at = window.place
        inside = window.edge(self.pleura.distance(at))
        # The lung is denser at the back, where the blood sinks to.
        window.paint(inside, Tissue(LUNG.hu + 60 * np.clip(at.y + 0.1, -0.4, 0.5), LUNG.texture))
        oblique = 0.8 * (at.z - 0.22) - 0.6 * at.y - 0.12 * np.sin(4 * at.x)
        window.paint(0.7 * inside * window.sheet(oblique, 0.004), FISSURE)
        window.paint(inside * self.vessels.coverage(window), LUNG_VESSEL)
        window.paint(inside * self.airways.widened(1.12, 0.003).coverage(window), AIRWAY_WALL)
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
        centre = np.array([0.11, -0.18, 0.21]) + rng.uniform(-0.015, 0.015, 3)
        size = rng.uniform(0.93, 1.05)
        outer = Ellipsoid.make(centre, np.array(HEART_SEMI) * size, (0, 22, -32))
        chambers = tuple(
            Ellipsoid.make(outer.point(at), np.array(semi) * size, angles) for at, semi, angles in CHAMBERS
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
        pleurae = (Pleura(side, torso, diaphragm, heart.outer) for side in (-1, 1))
        return cls(tuple(Lung.draw(rng, pleura) for pleura in pleurae), heart, Vessels.draw(rng, torso))

    def paint(self, canvas: Canvas) -> None:
        for lung in self.lungs:
            lung.paint(canvas)
        self.heart.paint(canvas)
        self.vessels.paint(canvas)
