"""Liver, spleen, kidneys, stomach, bowel, and the muscles beside the spine."""

from dataclasses import dataclass

import numpy as np

from volrecon.phantoms.canvas import Canvas, Ellipsoid, Place, Tissue, Triple, smooth_max
from volrecon.phantoms.torso import MUSCLE, VISCERAL_FAT, Diaphragm, Torso, points_inside
from volrecon.phantoms.tubes import Tubes, grow, path

LIVER = Tissue(106, 8)
LIVER_VESSEL = Tissue(138, 6)
BILE = Tissue(12, 4)
SPLEEN = Tissue(118, 8)
RENAL_CORTEX = Tissue(178, 10)
RENAL_MEDULLA = Tissue(138, 10)
GUT_WALL = Tissue(72, 9)
GUT_FLUID = Tissue(22, 7)
STOOL = Tissue(-40, 110)
GAS = Tissue(-985, 0)
GUT_CONTRAST = Tissue(60, 12)
URINE = Tissue(6, 4)

LIVER_BOUNDS = (-0.8, -0.65, -0.65), (0.4, 0.65, 0.25)
LIVER_TARGETS, LIVER_TIP = 80, 0.0078
LESIONS = 7

STOMACH: tuple[Triple, ...] = (
    (0.32, 0.1, -0.03),
    (0.36, 0.02, -0.16),
    (0.32, -0.18, -0.27),
    (0.12, -0.27, -0.32),
    (-0.04, -0.22, -0.29),
)
STOMACH_RADII = (0.13, 0.15, 0.11, 0.075, 0.045)
COLON: tuple[Triple, ...] = (
    (-0.46, 0.02, -0.78),
    (-0.5, 0.06, -0.62),
    (-0.48, -0.02, -0.5),
    (-0.25, -0.32, -0.46),
    (0.0, -0.36, -0.5),
    (0.28, -0.3, -0.4),
    (0.5, 0.06, -0.3),
    (0.52, 0.14, -0.5),
    (0.46, 0.1, -0.72),
    (0.28, 0.08, -0.82),
    (0.05, 0.12, -0.8),
)


@dataclass(frozen=True)
class Capsule:
    """The liver's surface: a wedge under the right dome that thins out to the patient's left."""

    torso: Torso
    diaphragm: Diaphragm
    lower_edge: float

    def distance(self, at: Place) -> np.ndarray:
        """Signed distance to the surface."""
        behind = at.y - self.torso.spine_y(at.z)
        spine = np.hypot(at.x + 0.02, behind) - self.torso.spine_radius(at.z) - 0.06
        # The lower surface rises to the left and to the back, where the kidney lies.
        floor = self.lower_edge + 0.55 * (at.x + 0.65) + 0.3 * np.maximum(at.y, 0) + 0.35 * np.maximum(at.x, 0)
        floor = floor + 0.03 * np.sin(9 * at.y + 4 * at.x) + 0.25 * at.y * at.y
        above = smooth_max(self.diaphragm.below(at) + 0.012, at.wall + 0.014, 0.04)
        below = smooth_max(0.8 * (floor - at.z), -spine, 0.06)
        return smooth_max(above, smooth_max(below, 0.7 * (at.x - 0.3), 0.1), 0.05)


@dataclass(frozen=True)
class Liver:
    """Portal branches, lesions of 12 to 30 HU above or below the liver, and the gallbladder."""

    capsule: Capsule
    vessels: Tubes
    lesions: tuple[tuple[Ellipsoid, Tissue], ...]
    gallbladder: Ellipsoid

    @classmethod
    def draw(cls, rng: np.random.Generator, torso: Torso, diaphragm: Diaphragm) -> "Liver":
        capsule = Capsule(torso, diaphragm, rng.uniform(-0.56, -0.48))

        def points(count: int, margin: float) -> np.ndarray:
            return points_inside(rng, torso, capsule.distance, LIVER_BOUNDS, count, margin)

        vessels = grow(np.array([-0.12, 0.0, -0.12]), points(LIVER_TARGETS, 0.03), LIVER_TIP, rng)
        lesions = []
        for spot in points(LESIONS, 0.045):
            shape = Ellipsoid.make(spot, rng.uniform(0.018, 0.065) * rng.uniform(0.8, 1.2, 3))
            contrast = rng.uniform(12, 30) * (1 if rng.random() < 0.3 else -1)
            lesions.append((shape, Tissue(LIVER.hu + contrast, LIVER.texture)))
        turn = rng.uniform(-20, 30)
        gallbladder = Ellipsoid.make((-0.2, -0.2, -0.28), (0.045, 0.085, 0.05), (20, 0, turn))
        return cls(capsule, vessels, tuple(lesions), gallbladder)

    def paint(self, canvas: Canvas) -> None:
        window = canvas.window(*np.array(LIVER_BOUNDS))
        if window is None:
            return
        inside = window.edge(self.capsule.distance(window.place))
        window.paint(inside, LIVER)
        window.paint(inside * self.vessels.coverage(window), LIVER_VESSEL)
        for lesion, tissue in self.lesions:
            lesion.paint(window, tissue)
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
        semi = np.array([0.1, 0.115, 0.19]) * rng.uniform(0.92, 1.05)
        body = Ellipsoid.make(centre, semi, (-8, side * 12, side * 30))
        pyramids = []
        for height in (-0.55, -0.2, 0.2, 0.55):
            for angle in height + 2 * np.pi * np.arange(5) / 5:
                spot = body.point((0.42 * np.cos(angle), 0.42 * np.sin(angle), height))
                pyramids.append(Ellipsoid.make(spot, rng.uniform(0.02, 0.028, 3)))
        hilum = body.point((-side * 0.5, -0.15, 0))
        sinus = Ellipsoid.make(hilum, (0.055, 0.04, 0.085), (0, side * 12, side * 30))
        return cls(body, tuple(pyramids), sinus)

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
        outer = self.tube.coverage(canvas)
        if not outer.any():
            return
        wall = canvas.place.wall
        canvas.paint(outer * canvas.edge(wall + 0.012), GUT_WALL)
        lumen = self.tube.widened(1.0, -self.wall).coverage(canvas) * canvas.edge(wall + 0.012 + self.wall)
        canvas.paint(lumen, self.contents)
        if self.gas_in_front_of is not None:
            canvas.paint(lumen * canvas.edge(canvas.place.y - self.gas_in_front_of), GAS)


def _wobbled(rng: np.random.Generator, line: tuple[Triple, ...]) -> np.ndarray:
    return np.array(line) + rng.uniform(-0.02, 0.02, (len(line), 3))


def _stomach(rng: np.random.Generator) -> Gut:
    radii = np.array(STOMACH_RADII) * rng.uniform(0.9, 1.1)
    return Gut(path(_wobbled(rng, STOMACH), radii, 30), 0.018, GUT_FLUID, rng.uniform(-0.16, -0.06))


def _colon(rng: np.random.Generator) -> Gut:
    """Round the abdomen from right to left, swelling and narrowing in haustra."""
    tube = path(_wobbled(rng, COLON), 0.07, 90)
    swell = 1 + 0.16 * np.sin(np.arange(91) * 1.4)
    tube = Tubes(tube.start, tube.end, tube.start_radius * swell[:-1], tube.end_radius * swell[1:])
    return Gut(tube, 0.011, STOOL, rng.uniform(-0.4, -0.33))


def _small_bowel(rng: np.random.Generator) -> tuple[Gut, ...]:
    """Loops that wander in the middle of the belly: sums of sines stay inside it without being regular."""
    loops = []
    way = np.linspace(0, 2 * np.pi, 40)[:, None]
    for _ in range(7):
        slow, fast = rng.uniform(0, 2 * np.pi, (2, 3))
        swing = 0.65 * np.sin(rng.uniform(0.8, 1.6, 3) * way + slow) + 0.35 * np.sin(3.1 * way + fast)
        line = np.array([0.0, -0.21, -0.64]) + swing * [0.36, 0.17, 0.2]
        contents = GUT_FLUID if rng.random() < 0.7 else GUT_CONTRAST
        loops.append(Gut(path(line, rng.uniform(0.042, 0.054), 80), 0.013, contents, rng.uniform(-0.46, -0.34)))
    return tuple(loops)


@dataclass(frozen=True)
class Abdomen:
    """The organs below the diaphragm."""

    diaphragm: Diaphragm
    liver: Liver
    spleen: Ellipsoid
    kidneys: tuple[Kidney, ...]
    gut: tuple[Gut, ...]
    muscles: tuple[Tubes, ...]
    bladder: Ellipsoid

    @classmethod
    def draw(cls, rng: np.random.Generator, torso: Torso, diaphragm: Diaphragm) -> "Abdomen":
        spleen = np.array([0.12, 0.22, 0.22]) * rng.uniform(0.9, 1.1)
        bladder = np.array([0.17, 0.13, 0.1]) * rng.uniform(0.8, 1.1)
        return cls(
            diaphragm,
            Liver.draw(rng, torso, diaphragm),
            Ellipsoid.make((0.5, 0.2, -0.08), spleen, (15, -10, -28)),
            (Kidney.draw(rng, -1), Kidney.draw(rng, 1)),
            (*_small_bowel(rng), _colon(rng), _stomach(rng)),
            tuple(muscle(torso, side) for muscle in (_psoas, _erector) for side in (-1, 1)),
            Ellipsoid.make((0, -0.14, -0.86), bladder),
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
