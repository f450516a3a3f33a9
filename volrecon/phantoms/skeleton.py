"""Vertebral column, ribs, sternum, clavicles, scapulae, pelvis: cortical shells around trabecular bone."""

from dataclasses import dataclass

import numpy as np

from volrecon.phantoms.canvas import Canvas, Ellipsoid, Place, Tissue, oval, smooth_max, smooth_min
from volrecon.phantoms.torso import Torso
from volrecon.phantoms.tubes import Tubes, path

CORTICAL = Tissue(950, 40)
TRABECULAR = Tissue(250, 55)
DISC = Tissue(95, 8)
CANAL = Tissue(12, 5)
CORD = Tissue(42, 5)
CARTILAGE = Tissue(115, 10)
CALCIFICATION = Tissue(620, 40)

PERIOD = 0.148
"""Height of a vertebra with its disc, and so the spacing of the ribs."""

TOP_RIB, BOTTOM_RIB = 0.7, -0.42
"""Heights at the spine between which vertebrae carry ribs."""


def _shell(canvas: Canvas, distance: np.ndarray, cortex: float) -> None:
    """A bone: cortical to a depth of `cortex`, trabecular inside."""
    canvas.paint(canvas.edge(distance), CORTICAL)
    canvas.paint(canvas.edge(distance + cortex), TRABECULAR)


@dataclass(frozen=True)
class Spine:
    """Vertebrae repeated along the spine's curve; `phase` shifts them along z."""

    torso: Torso
    phase: float

    def paint(self, canvas: Canvas) -> None:
        window = canvas.window(np.array([-0.3, -0.1, -1.0]), np.array([0.3, 0.55, 1.0]))
        if window is None:
            return
        at = window.place
        radius = self.torso.spine_radius(at.z)
        behind = at.y - self.torso.spine_y(at.z)
        height = (np.mod((at.z - self.phase) / PERIOD, 1) - 0.5) * PERIOD
        ends = np.float32(self.torso_end()) - np.abs(at.z)
        self._paint_bodies(window, behind, height, radius, ends)
        self._paint_arches(window, behind - radius - 0.035, height, ends)

    def torso_end(self) -> float:
        """The column stops short of the body's ends."""
        return 0.84

    def _paint_bodies(
        self, canvas: Canvas, behind: np.ndarray, height: np.ndarray, radius: np.ndarray, ends: np.ndarray
    ) -> None:
        waist = 1 - 0.1 * np.cos(np.pi * height / (0.5 * PERIOD)) ** 2
        flat = oval(canvas.place.x, behind, 1.0, 0.82) if False else None
        del flat
        x = canvas.place.x / (radius * waist)
        y = behind / (0.84 * radius * waist)
        section = (np.hypot(x, y) - 1) * radius * 0.92
        section = smooth_max(section, behind - 0.7 * radius, 0.03)
        section = smooth_max(section, -ends, 0.02)
        canvas.paint(canvas.edge(section + 0.006), DISC)
        _shell(canvas, smooth_max(section, np.abs(height) - 0.4 * PERIOD, 0.012), 0.011)

    def _paint_arches(self, canvas: Canvas, behind: np.ndarray, height: np.ndarray, ends: np.ndarray) -> None:
        x = canvas.place.x
        ring = np.hypot(x, behind)
        lamina = smooth_max(np.abs(ring - 0.062) - 0.015, np.abs(height + 0.01) - 0.36 * PERIOD, 0.015)
        sloped = height + 0.45 * (behind - 0.06)
        spinous = smooth_max(
            smooth_max(np.abs(x) - 0.015, np.abs(behind - 0.12) - 0.065, 0.02), np.abs(sloped) - 0.26 * PERIOD, 0.02
        )
        wings = smooth_max(
            np.abs(behind - 0.01 - 0.25 * (np.abs(x) - 0.06)) - 0.019,
            smooth_max(np.abs(np.abs(x) - 0.115) - 0.055, np.abs(height - 0.02) - 0.17 * PERIOD, 0.02),
            0.02,
        )
        arch = smooth_min(smooth_min(lamina, spinous, 0.02), wings, 0.02)
        _shell(canvas, smooth_max(arch, -ends, 0.02), 0.012)
        inside = ends > 0
        canvas.paint(inside * canvas.edge(ring - 0.046), CANAL)
        canvas.paint(inside * canvas.edge(np.hypot(x / 1.25, behind) - 0.024), CORD)


@dataclass(frozen=True)
class RibCage:
    """Ribs that leave the vertebrae and fall as they come forward, their cartilage, and the sternum."""

    torso: Torso
    phase: float
    drop: float
    bend: float

    def paint(self, canvas: Canvas) -> None:
        window = canvas.window(np.array([-1.0, -1.0, BOTTOM_RIB - 0.45]), np.array([1.0, 1.0, TOP_RIB + 0.1]))
        if window is None:
            return
        at = window.place
        outward = at.wall - 0.024
        around = np.arctan2(np.abs(at.x), at.y - 0.02)
        risen = at.z + self.drop * (1 - np.cos(around)) / 2 + self.bend * np.sin(2 * around)
        height = (np.mod((risen - self.phase) / PERIOD + 0.5, 1) - 0.5) * PERIOD
        rib = oval(outward, height, 0.019, 0.034)
        span = np.clip((risen - BOTTOM_RIB) / (TOP_RIB - BOTTOM_RIB), 0, 1)
        bony_end, end = 1.45 + 0.95 * span, 1.5 + 2.4 * span
        limits = np.maximum(risen - TOP_RIB, BOTTOM_RIB - risen)
        rib = smooth_max(rib, smooth_max(limits, 0.22 - around, 0.02), 0.02)
        window.paint(window.edge(smooth_max(rib, 0.5 * (around - end), 0.02)), CARTILAGE)
        _shell(window, smooth_max(rib, 0.5 * (around - bony_end), 0.02), 0.0105)
        self._paint_sternum(window, outward)

    def _paint_sternum(self, canvas: Canvas, outward: np.ndarray) -> None:
        at = canvas.place
        wide = np.abs(at.x) - 0.06 - 0.05 * np.clip((at.z - 0.4) * 4, 0, 1)
        plate = smooth_max(np.abs(outward) - 0.026, smooth_max(wide, np.abs(at.z - 0.3) - 0.27, 0.03), 0.02)
        _shell(canvas, smooth_max(plate, at.y + 0.1, 0.02), 0.0105)


@dataclass(frozen=True)
class Scapula:
    """A thin triangular plate behind the ribs with a ridge."""

    side: int
    torso: Torso

    def paint(self, canvas: Canvas) -> None:
        ends = sorted((self.side * 0.2, self.side * 0.75))
        window = canvas.window(np.array([ends[0], 0.0, 0.22]), np.array([ends[1], 0.6, 0.76]))
        if window is None:
            return
        at = window.place
        x = self.side * at.x
        plate = np.abs(at.wall - 0.058) - 0.01
        triangle = np.maximum(np.maximum(0.62 * (0.3 - x) + 0.2 * (0.4 - at.z), at.z - 0.68), 0.8 * (x - 0.4 - 0.5 * (at.z - 0.3)))
        triangle = np.maximum(triangle, 0.02 - at.y)
        blade = smooth_max(plate, triangle, 0.02)
        ridge = smooth_max(np.abs(at.z - 0.56 - 0.25 * (x - 0.4)) - 0.012, smooth_max(np.abs(at.wall - 0.075) - 0.022, triangle + 0.03, 0.02), 0.02)
        _shell(window, smooth_min(blade, ridge, 0.02), 0.008)


@dataclass(frozen=True)
class Pelvis:
    """The two iliac wings and the sacrum between them."""

    torso: Torso

    def paint(self, canvas: Canvas) -> None:
        window = canvas.window(np.array([-0.75, -0.3, -1.0]), np.array([0.75, 0.55, -0.5]))
        if window is None:
            return
        at = window.place
        x = np.abs(at.x)
        lean = x - 0.47 - 0.42 * (at.z + 0.75) - 0.25 * (0.1 - at.y) * (at.y > -1) + 0.5 * (at.y - 0.1) ** 2
        crest = (np.hypot((at.y - 0.08) / 0.3, (at.z + 0.92) / 0.36) - 1) * 0.3
        thickness = 0.017 + 0.25 * np.maximum(crest + 0.1, 0) ** 2 + 0.08 * np.maximum(-0.75 - at.z, 0)
        wing = smooth_max(0.9 * np.abs(lean) - thickness, crest, 0.02)
        wing = smooth_max(wing, np.abs(at.z) - 0.845, 0.02)
        _shell(window, wing, 0.011)


@dataclass(frozen=True)
class Skeleton:
    """All bones, and calcifications in the aorta's wall and the lungs."""

    bones: tuple[Spine | RibCage | Scapula | Pelvis, ...]
    clavicles: tuple[Tubes, ...]
    calcifications: tuple[Ellipsoid, ...]

    @classmethod
    def draw(cls, rng: np.random.Generator, torso: Torso) -> "Skeleton":
        phase = rng.uniform(0, PERIOD)
        cage = RibCage(torso, phase, rng.uniform(0.36, 0.44), rng.uniform(0.0, 0.03))
        bones = (cage, Spine(torso, phase), Scapula(-1, torso), Scapula(1, torso), Pelvis(torso))
        return cls(bones, (_clavicle(-1), _clavicle(1)), _calcifications(rng, torso))

    def paint(self, canvas: Canvas) -> None:
        for bone in self.bones:
            bone.paint(canvas)
        for clavicle in self.clavicles:
            clavicle.paint(canvas, CORTICAL)
            clavicle.widened(1.0, -0.011).paint(canvas, TRABECULAR)
        for speck in self.calcifications:
            speck.paint(canvas, CALCIFICATION)


def _clavicle(side: int) -> Tubes:
    line = np.array([[0.07, -0.3, 0.57], [0.2, -0.28, 0.62], [0.38, -0.17, 0.66], [0.52, -0.12, 0.66]])
    return path(line * [side, 1, 1], np.array([0.034, 0.026, 0.026, 0.032]), 16)


def _calcifications(rng: np.random.Generator, torso: Torso) -> tuple[Ellipsoid, ...]:
    specks = []
    for z in rng.uniform(-0.6, 0.35, 8):
        angle = rng.uniform(0, 2 * np.pi)
        wall = np.array([0.055 + 0.05 * np.cos(angle), 0.05 * np.sin(angle), 0.0])
        front = float(torso.spine_y(z) - torso.spine_radius(z)) - 0.045
        specks.append(Ellipsoid.make(wall + [0, front, z], rng.uniform(0.004, 0.013, 3)))
    for _ in range(5):
        spot = rng.uniform((0.25, -0.2, 0.1), (0.5, 0.25, 0.6)) * [rng.choice([-1, 1]), 1, 1]
        specks.append(Ellipsoid.make(spot, rng.uniform(0.004, 0.009, 3)))
    return tuple(specks)
