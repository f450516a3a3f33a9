"""Liver, spleen, kidneys, stomach, bowel, and the muscles beside the spine."""

from dataclasses import dataclass

import numpy as np

from volrecon.phantoms.canvas import Canvas, Ellipsoid, Place, Tissue, smooth_max
from volrecon.phantoms.torso import MUSCLE, VISCERAL_FAT, Diaphragm, Torso
from volrecon.phantoms.tubes import Tubes, grow, path

LIVER = Tissue(106, 10)
LIVER_VESSEL = Tissue(138, 6)
BILE = Tissue(12, 4)
SPLEEN = Tissue(118, 8)
RENAL_CORTEX = Tissue(178, 10)
RENAL_MEDULLA = Tissue(138, 10)
GUT_WALL = Tissue(72, 9)
GUT_FLUID = Tissue(22, 7)
STOOL = Tissue(-40, 110)
GAS = Tissue(-985, 0)
URINE = Tissue(6, 4)

LIVER_TARGETS = 70
LESIONS = 7


@dataclass(frozen=True)
class Liver:
    """A wedge under the right dome with portal branches, low-contrast lesions and the gallbladder."""

    torso: Torso
    diaphragm: Diaphragm
    lower_edge: float
    vessels: Tubes
    lesions: tuple[tuple[Ellipsoid, float], ...]
    gallbladder: Ellipsoid

    @classmethod
    def draw(cls, rng: np.random.Generator, torso: Torso, diaphragm: Diaphragm) -> "Liver":
        gallbladder = Ellipsoid.make((-0.2, -0.2, -0.28), (0.045, 0.085, 0.05), (20, 0, rng.uniform(-20, 30)))
        nothing = path(np.zeros((2, 3)) + [[0.0], [1.0]], 0.0, 1)
        bare = cls(torso, diaphragm, rng.uniform(-0.56, -0.48), nothing, (), gallbladder)
        vessels = grow(np.array([-0.12, 0.0, -0.12]), bare._points(rng, LIVER_TARGETS, 0.03), 0.0052, rng)
        lesions = []
        for spot in bare._points(rng, LESIONS, 0.045):
            size = rng.uniform(0.014, 0.055)
            contrast = rng.uniform(12, 30) * rng.choice([-1, -1, 1])
            lesions.append((Ellipsoid.make(spot, size * rng.uniform(0.8, 1.2, 3)), float(contrast)))
        return cls(torso, diaphragm, bare.lower_edge, vessels, tuple(lesions), gallbladder)

    def distance(self, at: Place) -> np.ndarray:
        """Signed distance to the capsule."""
        spine = np.hypot(at.x + 0.02, at.y - self.torso.spine_y(at.z)) - self.torso.spine_radius(at.z) - 0.06
        # The lower surface rises to the patient's left and to the back, where the kidney lies.
        floor = self.lower_edge + 0.55 * (at.x + 0.65) + 0.25 * np.maximum(at.y, 0) + 0.35 * np.maximum(at.x, 0)
        above = smooth_max(self.diaphragm.below(at) + 0.012, at.wall + 0.014, 0.04)
        below = smooth_max(0.8 * (floor - at.z), -spine, 0.06)
        return smooth_max(above, smooth_max(below, 0.7 * (at.x - 0.3), 0.1), 0.05)

    def _points(self, rng: np.random.Generator, count: int, margin: float) -> np.ndarray:
        found = np.empty((0, 3))
        while len(found) < count:
            tries = rng.uniform((-0.75, -0.5, -0.6), (0.3, 0.5, 0.2), (8 * count, 3))
            found = np.concatenate([found, tries[self.distance(self.torso.place(*tries.T)) < -margin]])
        return found[:count]

    def paint(self, canvas: Canvas) -> None:
        window = canvas.window(np.array([-0.8, -0.6, -0.65]), np.array([0.4, 0.6, 0.25]))
        if window is None:
            return
        inside = window.edge(self.distance(window.place))
        window.paint(inside, LIVER)
        window.paint(inside * self.vessels.coverage(window), LIVER_VESSEL)
        for lesion, contrast in self.lesions:
            lesion.paint(window, Tissue(LIVER.hu + contrast, LIVER.texture))
        self.gallbladder.grown(0.008).paint(canvas, GUT_WALL)
        self.gallbladder.paint(canvas, BILE)


@dataclass(frozen=True)
class Kidney:
    """Cortex around medullary pyramids around the fat of the sinus."""

    body: Ellipsoid
    pyramids: tuple[Ellipsoid, ...]
    sinus: Ellipsoid

    @classmethod
    def draw(cls, rng: np.random.Generator, side: int) -> "Kidney":
        centre = np.array([side * 0.3, 0.2, -0.36 + 0.03 * side]) + rng.uniform(-0.015, 0.015, 3)
        body = Ellipsoid.make(centre, np.array([0.1, 0.115, 0.19]) * rng.uniform(0.92, 1.05), (-8, side * 12, side * 30))
        around = [(0.42 * np.cos(t), 0.42 * np.sin(t), h) for h in (-0.55, -0.2, 0.2, 0.55) for t in np.arange(5) * 1.257 + h]
        pyramids = tuple(Ellipsoid.make(body.point(spot), rng.uniform(0.02, 0.028, 3)) for spot in around)
        sinus = Ellipsoid.make(body.point((-side * 0.5, -0.15, 0)), (0.055, 0.04, 0.085), (0, side * 12, side * 30))
        return cls(body, pyramids, sinus)

    def paint(self, canvas: Canvas) -> None:
        self.body.paint(canvas, RENAL_CORTEX)
        for pyramid in self.pyramids:
            pyramid.paint(canvas, RENAL_MEDULLA)
        self.sinus.paint(canvas, VISCERAL_FAT)


@dataclass(frozen=True)
class Gut:
    """A hollow tube: wall, contents, and gas that rises to the front of a patient on the back."""

    tube: Tubes
    wall: float
    contents: Tissue
    gas_in_front_of: float | None

    def paint(self, canvas: Canvas) -> None:
        canvas.paint(self.tube.coverage(canvas), GUT_WALL)
        lumen = self.tube.widened(1.0, -self.wall).coverage(canvas)
        if not lumen.any():
            return
        canvas.paint(lumen, self.contents)
        if self.gas_in_front_of is not None:
            canvas.paint(lumen * canvas.edge(canvas.place.y - self.gas_in_front_of), GAS)


def _stomach(rng: np.random.Generator) -> Gut:
    line = np.array([[0.36, 0.12, -0.02], [0.4, 0.04, -0.16], [0.33, -0.14, -0.27], [0.12, -0.22, -0.31], [-0.02, -0.18, -0.28]])
    radii = np.array([0.11, 0.13, 0.1, 0.07, 0.045]) * rng.uniform(0.9, 1.1)
    return Gut(path(line + rng.uniform(-0.02, 0.02, line.shape), radii, 30), 0.018, GUT_FLUID, rng.uniform(-0.16, -0.06))


def _colon(rng: np.random.Generator) -> Gut:
    line = np.array(
        [[-0.46, 0.02, -0.78], [-0.5, 0.06, -0.62], [-0.48, -0.02, -0.5], [-0.25, -0.32, -0.46], [0.0, -0.36, -0.5],
         [0.28, -0.3, -0.4], [0.5, 0.06, -0.3], [0.52, 0.14, -0.5], [0.46, 0.1, -0.72], [0.28, 0.08, -0.82], [0.05, 0.12, -0.8]]
    )
    # Haustra: the radius swells and narrows along the way.
    tube = path(line + rng.uniform(-0.02, 0.02, line.shape), 0.07, 90)
    swell = 1 + 0.16 * np.sin(np.arange(91) * 1.4)
    tube = Tubes(tube.start, tube.end, tube.start_radius * swell[:-1], tube.end_radius * swell[1:])
    return Gut(tube, 0.011, STOOL, rng.uniform(-0.4, -0.33))


def _small_bowel(rng: np.random.Generator) -> tuple[Gut, ...]:
    loops = []
    for _ in range(4):
        way = rng.uniform((-0.3, -0.3, -0.82), (0.32, -0.02, -0.5), (11, 3))
        contents = GUT_FLUID if rng.random() < 0.7 else Tissue(60, 12)
        loops.append(Gut(path(way, 0.046 * rng.uniform(0.85, 1.1), 80), 0.014, contents, rng.uniform(-0.36, -0.26)))
    return tuple(loops)


@dataclass(frozen=True)
class Abdomen:
    """The organs below the diaphragm."""

    torso: Torso
    diaphragm: Diaphragm
    liver: Liver
    spleen: Ellipsoid
    kidneys: tuple[Kidney, ...]
    gut: tuple[Gut, ...]
    muscles: tuple[Tubes, ...]
    bladder: Ellipsoid

    @classmethod
    def draw(cls, rng: np.random.Generator, torso: Torso, diaphragm: Diaphragm) -> "Abdomen":
        return cls(
            torso,
            diaphragm,
            Liver.draw(rng, torso, diaphragm),
            Ellipsoid.make((0.5, 0.2, -0.08), np.array([0.11, 0.19, 0.2]) * rng.uniform(0.9, 1.1), (15, -10, -28)),
            (Kidney.draw(rng, -1), Kidney.draw(rng, 1)),
            (*_small_bowel(rng), _colon(rng), _stomach(rng)),
            tuple(_psoas(torso, side) for side in (-1, 1)) + tuple(_erector(torso, side) for side in (-1, 1)),
            Ellipsoid.make((0, -0.14, -0.86), np.array([0.17, 0.13, 0.1]) * rng.uniform(0.8, 1.1)),
        )

    def paint(self, canvas: Canvas) -> None:
        for muscle in self.muscles:
            muscle.paint(canvas, MUSCLE)
        for kidney in self.kidneys:
            kidney.paint(canvas)
        for gut in self.gut:
            gut.paint(canvas)
        self._paint_spleen(canvas)
        self.liver.paint(canvas)
        self.bladder.grown(0.014).paint(canvas, GUT_WALL)
        self.bladder.paint(canvas, URINE)

    def _paint_spleen(self, canvas: Canvas) -> None:
        window = canvas.window(*self.spleen.bounds())
        if window is not None:
            limit = smooth_max(window.place.wall + 0.014, self.diaphragm.below(window.place) + 0.012, 0.04)
            window.paint(window.edge(smooth_max(self.spleen.distance(window.place), limit, 0.05)), SPLEEN)


def _psoas(torso: Torso, side: int) -> Tubes:
    z = np.array([-0.2, -0.4, -0.6, -0.78, -0.9])
    x = side * np.array([0.11, 0.16, 0.19, 0.23, 0.27])
    y = torso.spine_y(z) + np.array([0.03, 0.02, 0.0, -0.05, -0.1])
    return path(np.stack([x, y, z], axis=1), np.array([0.025, 0.055, 0.072, 0.07, 0.06]), 24)


def _erector(torso: Torso, side: int) -> Tubes:
    z = np.array([-0.86, -0.6, -0.3, 0.1, 0.5, 0.8])
    y = torso.spine_y(z) + torso.spine_radius(z) + np.array([0.08, 0.1, 0.09, 0.08, 0.06, 0.03])
    radii = np.array([0.07, 0.085, 0.08, 0.06, 0.05, 0.045])
    return path(np.stack([np.full(6, side * 0.115), y, z], axis=1), radii, 30)
