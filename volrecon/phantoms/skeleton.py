"""Vertebral column, ribs, sternum, clavicles, scapulae, pelvis: cortical shells around trabecular bone."""

from dataclasses import dataclass

import numpy as np

from volrecon.phantoms.canvas import Canvas, Ellipsoid, Organ, Tissue, Triple, oval, smooth_max, smooth_min
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

CORTEX = 0.0107
"""Thickness of the cortical shell: 2 mm in a box of 380 mm."""

TOP_RIB, BOTTOM_RIB = 0.7, -0.42
"""Heights at the spine between which vertebrae carry ribs."""

CLAVICLE: tuple[Triple, ...] = (
    (0.07, -0.3, 0.57),
    (0.2, -0.28, 0.62),
    (0.38, -0.17, 0.66),
    (0.52, -0.12, 0.66),
)
CLAVICLE_RADII = (0.034, 0.026, 0.026, 0.032)


def _bone(canvas: Canvas, distance: np.ndarray, cortex: float = CORTEX) -> None:
    """Cortical bone to a depth of `cortex`, trabecular inside."""
    canvas.paint(canvas.edge(distance), CORTICAL)
    canvas.paint(canvas.edge(distance + cortex), TRABECULAR)


@dataclass(frozen=True)
class Spine:
    """Vertebrae and discs repeated along the spine's curve; `phase` shifts them along z."""

    torso: Torso
    phase: float

    def paint(self, canvas: Canvas) -> None:
        window = canvas.window(np.array([-0.3, -0.1, -1.0]), np.array([0.3, 0.6, 1.0]))
        if window is None:
            return
        at = window.place
        radius, behind = self.torso.spine_radius(at.z), at.y - self.torso.spine_y(at.z)
        height = (np.mod((at.z - self.phase) / PERIOD, 1) - 0.5) * PERIOD
        self._paint_bodies(window, behind, height, radius)
        self._paint_arches(window, behind - radius - 0.035, height)

    def _paint_bodies(self, canvas: Canvas, behind: np.ndarray, height: np.ndarray, radius: np.ndarray) -> None:
        girth = radius * (1 - 0.1 * np.cos(2 * np.pi * height / PERIOD) ** 2)
        section = (np.hypot(canvas.place.x, behind / 0.84) / girth - 1) * radius * 0.92
        section = smooth_max(section, behind - 0.7 * radius, 0.03)
        canvas.paint(canvas.edge(section + 0.006), DISC)
        _bone(canvas, smooth_max(section, np.abs(height) - 0.4 * PERIOD, 0.012))

    def _paint_arches(self, canvas: Canvas, behind: np.ndarray, height: np.ndarray) -> None:
        """Lamina, spinous and transverse processes about the canal, which lies at `behind` = 0."""
        side = np.abs(canvas.place.x)
        ring = np.hypot(side, behind)
        lamina = smooth_max(np.abs(ring - 0.062) - 0.015, np.abs(height + 0.01) - 0.36 * PERIOD, 0.015)
        plate = smooth_max(side - 0.015, np.abs(behind - 0.12) - 0.065, 0.02)
        sloping = np.abs(height + 0.45 * (behind - 0.06)) - 0.26 * PERIOD
        bar = smooth_max(np.abs(side - 0.115) - 0.055, np.abs(height - 0.02) - 0.17 * PERIOD, 0.02)
        wings = smooth_max(np.abs(behind - 0.01 - 0.25 * (side - 0.06)) - 0.019, bar, 0.02)
        _bone(canvas, smooth_min(smooth_min(lamina, smooth_max(plate, sloping, 0.02), 0.02), wings, 0.02))
        canvas.paint(canvas.edge(ring - 0.046), CANAL)
        canvas.paint(canvas.edge(np.hypot(side / 1.25, behind) - 0.024), CORD)


@dataclass(frozen=True)
class RibCage:
    """Ribs that leave the vertebrae and fall by `drop` on their way forward, their cartilage, the sternum."""

    phase: float
    drop: float
    bend: float

    def paint(self, canvas: Canvas) -> None:
        window = canvas.window(np.array([-1.0, -1.0, BOTTOM_RIB - self.drop]), np.array([1.0, 1.0, TOP_RIB + 0.1]))
        if window is None:
            return
        at = window.place
        outward = at.wall - 0.024
        around = np.arctan2(np.abs(at.x), at.y - 0.02)  # 0 at the spine, pi at the sternum
        risen = at.z + self.drop * (1 - np.cos(around)) / 2 + self.bend * np.sin(2 * around)
        height = (np.mod((risen - self.phase) / PERIOD + 0.5, 1) - 0.5) * PERIOD
        limits = smooth_max(np.maximum(risen - TOP_RIB, BOTTOM_RIB - risen), 0.22 - around, 0.02)
        rib = smooth_max(oval(outward, height, 0.019, 0.034), limits, 0.02)
        # Upper ribs reach the sternum by their cartilage, the lower ones end at the side.
        rank = np.clip((risen - BOTTOM_RIB) / (TOP_RIB - BOTTOM_RIB), 0, 1)
        window.paint(window.edge(smooth_max(rib, 0.5 * (around - 1.5 - 2.4 * rank), 0.02)), CARTILAGE)
        _bone(window, smooth_max(rib, 0.5 * (around - 1.45 - 0.95 * rank), 0.02))
        self._paint_sternum(window, outward)

    def _paint_sternum(self, canvas: Canvas, outward: np.ndarray) -> None:
        at = canvas.place
        wide = np.abs(at.x) - 0.06 - 0.05 * np.clip((at.z - 0.4) * 4, 0, 1)
        rim = smooth_max(wide, np.abs(at.z - 0.3) - 0.27, 0.03)
        _bone(canvas, smooth_max(smooth_max(np.abs(outward) - 0.026, rim, 0.02), at.y + 0.1, 0.02))


@dataclass(frozen=True)
class Scapula:
    """A thin triangular plate behind the ribs with a ridge on its back."""

    side: int

    def paint(self, canvas: Canvas) -> None:
        near, far = sorted((self.side * 0.2, self.side * 0.75))
        window = canvas.window(np.array([near, 0.0, 0.22]), np.array([far, 0.7, 0.76]))
        if window is None:
            return
        at, x = window.place, self.side * window.place.x
        inner = 0.62 * (0.3 - x) + 0.2 * (0.4 - at.z)
        outer = 0.8 * (x - 0.4 - 0.5 * (at.z - 0.3))
        triangle = np.maximum(np.maximum(inner, outer), np.maximum(at.z - 0.68, 0.02 - at.y))
        blade = smooth_max(np.abs(at.wall - 0.058) - 0.01, triangle, 0.02)
        ridge = smooth_max(np.abs(at.wall - 0.075) - 0.022, triangle + 0.03, 0.02)
        ridge = smooth_max(ridge, np.abs(at.z - 0.56 - 0.25 * (x - 0.4)) - 0.012, 0.02)
        _bone(window, smooth_min(blade, ridge, 0.02), 0.008)


@dataclass(frozen=True)
class Pelvis:
    """The two iliac wings, and the sacrum with its foramina between them."""

    torso: Torso

    def paint(self, canvas: Canvas) -> None:
        window = canvas.window(np.array([-0.8, -0.4, -1.0]), np.array([0.8, 0.6, -0.5]))
        if window is None:
            return
        at, x = window.place, np.abs(window.place.x)
        flare = 0.44 + 0.4 * (at.z + 0.75) + 0.6 * (0.12 - at.y) - 0.9 * (at.y - 0.12) ** 2
        crest = (np.hypot((at.y - 0.1) / 0.33, (at.z + 0.92) / 0.36) - 1) * 0.3
        thickness = 0.017 + 0.25 * np.maximum(crest + 0.1, 0) ** 2 + 0.08 * np.maximum(-0.75 - at.z, 0)
        wing = smooth_max(0.8 * np.abs(x - flare) - thickness, crest, 0.02)
        behind = at.y - self.torso.spine_y(at.z)
        sacrum = smooth_max(oval(x, behind, 0.27, 0.1), at.z + 0.74 + 0.4 * x, 0.03)
        sacrum = smooth_max(sacrum, 0.02 - np.hypot(x - 0.13, behind), 0.01)
        _bone(window, smooth_min(wing, sacrum, 0.015))


@dataclass(frozen=True)
class Skeleton:
    """All bones, and calcifications in the aorta's wall and the lungs."""

    bones: tuple[Organ, ...]
    clavicles: tuple[Tubes, ...]
    calcifications: tuple[Ellipsoid, ...]

    @classmethod
    def draw(cls, rng: np.random.Generator, torso: Torso) -> "Skeleton":
        phase = rng.uniform(0, PERIOD)
        cage = RibCage(phase, rng.uniform(0.36, 0.44), rng.uniform(0.0, 0.03))
        clavicles = tuple(path(np.array(CLAVICLE) * [side, 1, 1], np.array(CLAVICLE_RADII), 16) for side in (-1, 1))
        bones = (cage, Spine(torso, phase), Scapula(-1), Scapula(1), Pelvis(torso))
        return cls(bones, clavicles, _calcifications(rng, torso))

    def paint(self, canvas: Canvas) -> None:
        for bone in self.bones:
            bone.paint(canvas)
        for clavicle in self.clavicles:
            clavicle.paint(canvas, CORTICAL)
            clavicle.widened(1.0, -CORTEX).paint(canvas, TRABECULAR)
        for speck in self.calcifications:
            speck.paint(canvas, CALCIFICATION)


def _calcifications(rng: np.random.Generator, torso: Torso) -> tuple[Ellipsoid, ...]:
    """Eight in the wall of the aorta, five in the lungs."""
    specks = []
    for z in rng.uniform(-0.6, 0.35, 8):
        angle = rng.uniform(0, 2 * np.pi)
        front = float(torso.spine_y(z) - torso.spine_radius(z)) - 0.045
        spot = np.array([0.055 + 0.05 * np.cos(angle), front + 0.05 * np.sin(angle), z])
        specks.append(Ellipsoid.make(spot, rng.uniform(0.004, 0.013, 3)))
    for _ in range(5):
        spot = rng.uniform((0.25, -0.2, 0.1), (0.5, 0.25, 0.6)) * [rng.choice([-1, 1]), 1, 1]
        specks.append(Ellipsoid.make(spot, rng.uniform(0.004, 0.009, 3)))
    return tuple(specks)
