"""Procedural phantoms: arrays (z, y, x), float32, linear attenuation in 1/mm, air exactly 0."""

from volrecon.phantoms.patient import anatomy
from volrecon.phantoms.shapes import ball, ball_line_integral, box, box_line_integral

__all__ = ["anatomy", "ball", "ball_line_integral", "box", "box_line_integral"]
