"""The sprites of the synthetic benchmark: every subject, drawn in any colour and at any phase of its movement.

The drawing functions work in a square in which x and y run from -1 to 1. y points down, the feet are at y = 1, and the
subject faces right. `phase` runs from 0 to 1. A sprite is an image (S, S, 4), uint8, RGB premultiplied by alpha.
"""

import itertools
from collections.abc import Callable
from math import cos, pi, sin

import cv2
import numpy as np

from .synthetic_prompts import COLOURS

NUM_PHASES = 8
Tone = str | tuple[int, int, int]

_SKINS = ((255, 219, 180), (224, 172, 120), (160, 104, 66), (106, 66, 42))
_HAIRS = ((40, 28, 24), (92, 58, 32), (190, 150, 80), (120, 120, 125))
_DARK = (48, 48, 56)
_WHITE = (245, 245, 245)
_GLASS = (170, 212, 235)
_WOOD = (126, 84, 48)

_ANGLES = np.linspace(0, 2 * pi, 32, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)


class Pen:
    """Draws polygons, ovals and limbs on a transparent square.

    Args:
        size: height and width of the square in pixels.
        look: selects the colours of skin and hair, which no prompt mentions.
    """

    def __init__(self, size: int, colour: str, look: int):
        self.canvas = np.zeros((size, size, 4), np.uint8)
        main = np.array(COLOURS[colour], np.float32)
        light = main + (255 - main) * (0.45 if colour != "black" else 0.22)
        self.tones = {
            "main": main,
            "light": light if colour != "white" else np.array((222, 226, 232)),
            "dark": main * (0.62 if colour != "white" else 0.78),
            "skin": _SKINS[look % len(_SKINS)],
            "hair": _HAIRS[(look * 3 + 1) % len(_HAIRS)],
        }
        self.size = size

    def _paint(self, points: np.ndarray, tone: Tone) -> None:
        pixels = np.round((points * 0.94 + 1) * (self.size / 2)).astype(np.int32)
        rgb = self.tones[tone] if isinstance(tone, str) else tone
        cv2.fillPoly(self.canvas, [pixels], (*(float(c) for c in rgb), 255.0))

    def poly(self, tone: Tone, *points: tuple[float, float]) -> None:
        """Draw a filled polygon."""
        self._paint(np.array(points), tone)

    def box(self, tone: Tone, left: float, top: float, right: float, bottom: float) -> None:
        """Draw a filled rectangle."""
        self.poly(tone, (left, top), (right, top), (right, bottom), (left, bottom))

    def oval(self, tone: Tone, x: float, y: float, rx: float, ry: float | None = None, turn: float = 0.0) -> None:
        """Draw a filled ellipse with the radii rx and ry, turned by `turn` radians."""
        ry = ry or rx
        axes = np.array([(rx * cos(turn), rx * sin(turn)), (-ry * sin(turn), ry * cos(turn))])
        self._paint(_CIRCLE @ axes + (x, y), tone)

    def wedge(self, tone: Tone, x: float, y: float, radius: float, start: float, end: float) -> None:
        """Draw the slice of a disc between two angles in radians."""
        angle = np.linspace(start, end, 24)
        rim = np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1)
        self._paint(np.concatenate([[(x, y)], rim]), tone)

    def limb(self, tone: Tone, x0: float, y0: float, x1: float, y1: float, width: float) -> None:
        """Draw a thick line with round ends."""
        length = max(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5, 1e-6)
        nx, ny = -(y1 - y0) / length * width / 2, (x1 - x0) / length * width / 2
        self.poly(tone, (x0 + nx, y0 + ny), (x1 + nx, y1 + ny), (x1 - nx, y1 - ny), (x0 - nx, y0 - ny))
        self.oval(tone, x0, y0, width / 2)
        self.oval(tone, x1, y1, width / 2)

    def curve(self, tone: Tone, points: list[tuple[float, float]], width: float) -> None:
        """Draw a thick line through points."""
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            self.limb(tone, x0, y0, x1, y1, width)


def _regular(sides: int, radius: float, turn: float = 0.0, x: float = 0.0, y: float = 0.0) -> list[tuple[float, float]]:
    """The corners of a regular polygon."""
    angles = [turn + 2 * pi * side / sides for side in range(sides)]
    return [(x + radius * cos(a), y + radius * sin(a)) for a in angles]


# --- nature ------------------------------------------------------------------------------------------------------


def _tree(pen: Pen, phase: float) -> None:
    sway = 0.05 * sin(2 * pi * phase)
    pen.poly(_WOOD, (-0.13, 1), (0.13, 1), (0.07 + sway, 0), (-0.07 + sway, 0))
    pen.limb(_WOOD, 0, 0.35, 0.35 + sway, 0.0, 0.07)
    for x, y, r in ((-0.42, 0.02, 0.36), (0.42, 0.0, 0.36), (0, -0.1, 0.45)):
        pen.oval("dark", x + sway, y, r)
    for x, y, r in ((-0.35, -0.2, 0.38), (0.36, -0.24, 0.38), (0, -0.5, 0.45)):
        pen.oval("main", x + 1.6 * sway, y, r)
    for x, y in ((-0.42, -0.32), (-0.1, -0.66), (0.25, -0.42), (-0.02, -0.3), (0.42, -0.12), (-0.4, -0.05)):
        pen.oval("light", x + 1.6 * sway, y, 0.11, 0.07)


def _flower(pen: Pen, phase: float) -> None:
    sway = 0.07 * sin(2 * pi * phase)
    pen.curve((60, 130, 55), [(0, 1), (-0.03, 0.6), (sway, 0.2), (sway, -0.2)], 0.08)
    pen.oval((70, 150, 60), 0.22, 0.62, 0.24, 0.09, -0.6)
    pen.oval((60, 135, 55), -0.24, 0.72, 0.24, 0.09, 0.6)
    for petal in range(8):
        angle = 2 * pi * petal / 8
        tone = "main" if petal % 2 else "dark"
        pen.oval(tone, sway + 0.4 * cos(angle), -0.36 + 0.4 * sin(angle), 0.27, 0.17, angle)
    pen.oval((240, 200, 60), sway, -0.36, 0.2)
    pen.oval((190, 130, 40), sway, -0.36, 0.1)


def _mushroom(pen: Pen, phase: float) -> None:
    lean = 0.03 * sin(2 * pi * phase)
    pen.poly((236, 226, 205), (-0.24, 1), (0.24, 1), (0.16, 0), (-0.16, 0))
    pen.oval((205, 192, 168), 0, 0.12, 0.72, 0.16)
    pen.wedge("main", lean, 0.12, 0.86, pi, 2 * pi)
    for x, y, r in ((-0.45, -0.15, 0.13), (0.05, -0.45, 0.16), (0.45, -0.12, 0.11), (-0.12, -0.08, 0.09)):
        pen.oval("light", x + lean, y, r)


def _cactus(pen: Pen, phase: float) -> None:
    lean = 0.03 * sin(2 * pi * phase)
    pen.curve("dark", [(-0.1, 0.35), (-0.58, 0.35), (-0.6 + lean, -0.2)], 0.24)
    pen.curve("dark", [(0.1, 0.1), (0.56, 0.1), (0.58 + lean, -0.45)], 0.24)
    pen.limb("main", 0, 0.88, lean, -0.75, 0.42)
    for x in (-0.1, 0.02, 0.13):
        pen.limb("light", x, 0.85, x + lean, -0.72, 0.025)
    pen.oval((235, 110, 150) if pen.tones["main"][0] < 200 else (240, 220, 90), lean, -0.94, 0.12, 0.07)


def _cloud(pen: Pen, phase: float) -> None:
    puff = 0.03 * sin(2 * pi * phase)
    for x, y, r in ((-0.55, 0.2, 0.36), (0.55, 0.2, 0.34), (-0.2, -0.12, 0.42), (0.25, -0.05, 0.42), (0, 0.25, 0.42)):
        pen.oval("dark", x, y + 0.08, r + puff)
    for x, y, r in ((-0.55, 0.14, 0.34), (0.55, 0.14, 0.32), (-0.2, -0.16, 0.42), (0.25, -0.1, 0.42), (0, 0.16, 0.42)):
        pen.oval("main", x, y, r + puff)
    for x, y, r in ((-0.28, -0.28, 0.2), (0.2, -0.22, 0.17), (-0.6, 0.04, 0.15)):
        pen.oval("light", x, y, r)


def _leaf(pen: Pen, phase: float) -> None:
    curl = 0.12 * sin(2 * pi * phase)
    pen.poly("main", (-0.85, 0), (-0.4, -0.45), (0.2, -0.5), (0.9, curl), (0.2, 0.5), (-0.4, 0.42))
    pen.poly("dark", (-0.85, 0), (0.9, curl), (0.2, 0.5), (-0.4, 0.42))
    pen.limb("light", -1, 0.0, 0.85, curl, 0.05)
    for x in (-0.4, -0.1, 0.2, 0.5):
        pen.limb("light", x, 0, x + 0.18, -0.3, 0.03)
        pen.limb("light", x, 0, x + 0.18, 0.3, 0.03)


def _crystal(pen: Pen, phase: float) -> None:
    glint = 0.06 * sin(2 * pi * phase)
    for x, top, width, lean in ((-0.45, 0.0, 0.2, -0.25), (0.48, -0.1, 0.2, 0.25), (0, -0.95, 0.32, 0.0)):
        pen.poly("dark", (x - width, 1), (x + width, 1), (x + lean + width, top + 0.3), (x + lean, top))
        pen.poly("main", (x - width, 1), (x + 0.3 * width, 1), (x + lean + glint, top + 0.3), (x + lean, top))
        pen.poly("light", (x - width, 1), (x - 0.4 * width, 1), (x + lean - 0.05, top + 0.36), (x + lean, top))


# --- people ------------------------------------------------------------------------------------------------------


def _legs(pen: Pen, phase: float, hip: float, tone: Tone, width: float = 0.17, reach: float = 0.32) -> None:
    """Draw two swinging legs with shoes."""
    for side, shade in ((1, 0.0), (-1, 0.12)):
        swing = side * reach * sin(2 * pi * phase)
        lift = 0.12 * max(0.0, side * cos(2 * pi * phase))
        pen.curve(tone, [(shade * 0.3, hip), (swing * 0.5 + 0.04, (hip + 0.93) / 2), (swing, 0.9 - lift)], width)
        pen.oval(_DARK, swing + 0.08, 0.94 - lift, 0.14, 0.06)


def _arm(pen: Pen, phase: float, y: float, tone: Tone, side: int, raised: bool = False) -> None:
    """Draw one swinging arm with a hand."""
    swing = side * 0.3 * sin(2 * pi * phase)
    hand = (swing + 0.1 * side, y - 0.5) if raised else (swing, y + 0.46)
    elbow = (swing * 0.4 + (0.3 * side if raised else -0.04), y + (-0.12 if raised else 0.24))
    pen.curve(tone, [(0, y), elbow, hand], 0.13)
    pen.oval("skin", *hand, 0.075)


def _head(pen: Pen, y: float, radius: float, long_hair: bool = False) -> None:
    if long_hair:
        pen.oval("hair", -0.1, y + 0.16, radius * 1.05, radius * 1.6)
    pen.oval("skin", 0.02, y, radius)
    pen.wedge("hair", -0.01, y - 0.02, radius * 1.1, 0.85 * pi, 1.95 * pi)
    pen.oval(_DARK, 0.5 * radius + 0.02, y + 0.02, 0.03, 0.04)


def _man(pen: Pen, phase: float) -> None:
    _arm(pen, phase, -0.3, "dark", -1)
    _legs(pen, phase, 0.25, (58, 62, 84))
    pen.poly("main", (-0.25, -0.42), (0.25, -0.42), (0.23, 0.32), (-0.23, 0.32))
    pen.poly(_WHITE, (0.05, -0.42), (0.2, -0.42), (0.14, -0.15))
    pen.limb("dark", 0.12, -0.15, 0.12, 0.3, 0.03)
    _head(pen, -0.66, 0.22)
    _arm(pen, phase, -0.3, "main", 1)


def _woman(pen: Pen, phase: float) -> None:
    _arm(pen, phase, -0.3, "skin", -1)
    _legs(pen, phase, 0.3, "skin", 0.12, 0.26)
    swing = 0.05 * sin(2 * pi * phase)
    hem = ((0.46 + swing, 0.55), (-0.46 + swing, 0.55))
    pen.poly("main", (-0.18, -0.42), (0.18, -0.42), (0.14, -0.05), *hem, (-0.14, -0.05))
    pen.poly("dark", *hem[::-1], (0.42 + swing, 0.46), (-0.42 + swing, 0.46))
    pen.box("light", -0.15, -0.08, 0.15, -0.01)
    _head(pen, -0.66, 0.2, long_hair=True)
    _arm(pen, phase, -0.3, "skin", 1)


def _child(pen: Pen, phase: float) -> None:
    _legs(pen, phase, 0.45, (70, 90, 140), 0.2, 0.24)
    pen.oval("main", 0, 0.22, 0.34, 0.42)
    pen.oval("dark", 0, -0.38, 0.46, 0.44)
    pen.oval("main", -0.03, -0.4, 0.44, 0.42)
    pen.oval("skin", 0.1, -0.36, 0.3, 0.32)
    pen.oval(_DARK, 0.22, -0.38, 0.045, 0.06)
    pen.oval(_DARK, 0.02, -0.38, 0.045, 0.06)
    pen.oval((200, 90, 80), 0.13, -0.2, 0.08, 0.03)
    _arm(pen, phase, 0.02, "dark", 1)


def _dancer(pen: Pen, phase: float) -> None:
    _legs(pen, phase, 0.15, "skin", 0.11, 0.4)
    for side in (-1, 1):
        _arm(pen, phase + 0.25, -0.3, "skin", side, raised=True)
    pen.poly("dark", (-0.15, -0.4), (0.15, -0.4), (0.12, 0.1), (-0.12, 0.1))
    bob = 0.04 * sin(4 * pi * phase)
    pen.oval("main", 0, 0.16 + bob, 0.72, 0.17)
    pen.oval("light", 0, 0.11 + bob, 0.5, 0.1)
    _head(pen, -0.62, 0.18)
    pen.oval("hair", -0.14, -0.82, 0.1)


def _astronaut(pen: Pen, phase: float) -> None:
    pen.box(_DARK, -0.48, -0.35, -0.1, 0.35)
    pen.limb("dark", 0, -0.15, -0.35 * sin(2 * pi * phase), 0.35, 0.22)
    for side in (1, -1):
        swing = side * 0.28 * sin(2 * pi * phase)
        pen.curve("main" if side > 0 else "dark", [(0.05 * side, 0.35), (swing * 0.6, 0.65), (swing, 0.86)], 0.26)
        pen.oval((205, 205, 210), swing + 0.06, 0.92, 0.2, 0.08)
    pen.oval("main", 0, 0.1, 0.36, 0.42)
    pen.box((205, 205, 210), -0.02, -0.05, 0.26, 0.15)
    pen.oval((225, 228, 232), 0.02, -0.55, 0.4)
    pen.oval((40, 60, 95), 0.12, -0.55, 0.27, 0.24)
    pen.oval((150, 190, 230), 0.2, -0.63, 0.09, 0.06)
    pen.limb("main", 0, -0.12, 0.35 * sin(2 * pi * phase), 0.35, 0.22)


def _wizard(pen: Pen, phase: float) -> None:
    swing = 0.07 * sin(2 * pi * phase)
    pen.limb(_WOOD, 0.6, -0.6, 0.56 + swing, 0.98, 0.06)
    pen.oval((250, 235, 120), 0.6, -0.66, 0.11)
    pen.poly("main", (-0.18, -0.35), (0.18, -0.35), (0.48 + swing, 0.98), (-0.48 + swing, 0.98))
    pen.poly("dark", (0.05, -0.35), (0.18, -0.35), (0.48 + swing, 0.98), (0.2 + swing, 0.98))
    pen.limb("dark", 0, -0.2, 0.5, 0.1 + swing, 0.17)
    pen.oval("skin", 0.53, 0.1 + swing, 0.08)
    pen.oval("skin", 0.04, -0.44, 0.19)
    pen.poly((225, 225, 225), (-0.08, -0.4), (0.22, -0.4), (0.14, 0.12))
    pen.poly("main", (-0.38, -0.52), (0.4, -0.52), (0.05, -1.0), (-0.1, -0.95))
    pen.limb("light", -0.22, -0.58, 0.26, -0.58, 0.07)
    pen.oval(_DARK, 0.13, -0.46, 0.03)


# --- made things -------------------------------------------------------------------------------------------------


def _wheel(pen: Pen, x: float, y: float, radius: float, phase: float) -> None:
    pen.oval((30, 30, 34), x, y, radius)
    pen.oval((190, 192, 198), x, y, radius * 0.58)
    for spoke in range(2):
        angle = 2 * pi * phase + spoke * pi / 2
        dx, dy = 0.55 * radius * cos(angle), 0.55 * radius * sin(angle)
        pen.limb((90, 92, 98), x - dx, y - dy, x + dx, y + dy, 0.05)


def _car(pen: Pen, phase: float) -> None:
    cabin = ((-0.6, 0.1), (-0.38, -0.3), (0.3, -0.3), (0.58, 0.1))
    pen.poly("main", (-0.98, 0.5), (-0.95, 0.15), *cabin, (0.95, 0.2), (0.98, 0.5))
    pen.poly(_GLASS, (-0.46, 0.08), (-0.3, -0.2), (-0.06, -0.2), (-0.06, 0.08))
    pen.poly(_GLASS, (0.02, 0.08), (0.02, -0.2), (0.26, -0.2), (0.44, 0.08))
    pen.poly("dark", (-0.98, 0.5), (-0.97, 0.36), (0.97, 0.36), (0.98, 0.5))
    pen.limb("light", -0.85, 0.18, 0.8, 0.18, 0.04)
    pen.oval((255, 240, 170), 0.9, 0.28, 0.07)
    pen.oval((220, 50, 40), -0.94, 0.26, 0.05)
    for x in (-0.55, 0.55):
        _wheel(pen, x, 0.55, 0.24, phase)


def _bus(pen: Pen, phase: float) -> None:
    pen.box("main", -0.98, -0.6, 0.98, 0.5)
    pen.box("light", -0.98, -0.6, 0.98, -0.5)
    pen.box("dark", -0.98, 0.28, 0.98, 0.5)
    for left in (-0.88, -0.5, -0.12, 0.26):
        pen.box(_GLASS, left, -0.38, left + 0.3, 0.02)
    pen.box(_GLASS, 0.68, -0.38, 0.98, 0.1)
    pen.oval((255, 240, 170), 0.92, 0.34, 0.06)
    for x in (-0.58, 0.56):
        _wheel(pen, x, 0.55, 0.22, phase)


def _robot(pen: Pen, phase: float) -> None:
    swing = 0.2 * sin(2 * pi * phase)
    for side in (-1, 1):
        pen.limb((120, 124, 132), 0.2 * side, 0.35, 0.2 * side + swing * side * 0.5, 0.82, 0.14)
        pen.box("dark", 0.2 * side + swing * side * 0.5 - 0.15, 0.82, 0.2 * side + swing * side * 0.5 + 0.17, 1.0)
        pen.curve((120, 124, 132), [(0.4 * side, -0.1), (0.6 * side, 0.1), (0.6 * side, 0.32 - side * swing)], 0.12)
        pen.oval("dark", 0.6 * side, 0.36 - side * swing, 0.12)
    pen.box("main", -0.42, -0.25, 0.42, 0.42)
    pen.box((60, 66, 78), -0.24, -0.1, 0.24, 0.2)
    pen.oval((90, 230, 150), -0.1 + 0.2 * (phase > 0.5), 0.05, 0.07)
    pen.limb((120, 124, 132), 0, -0.7, 0, -0.95, 0.05)
    pen.oval((250, 80, 70), 0, -0.93, 0.07)
    pen.box("main", -0.32, -0.78, 0.32, -0.3)
    pen.box("light", -0.32, -0.78, 0.32, -0.7)
    for x in (-0.14, 0.16):
        pen.oval(_WHITE, x, -0.55, 0.1)
        pen.oval(_DARK, x + 0.03, -0.55, 0.05)


def _sailboat(pen: Pen, phase: float) -> None:
    tilt = 0.06 * sin(2 * pi * phase)
    pen.limb(_WOOD, 0, 0.6, tilt, -0.98, 0.05)
    pen.poly("main", (0.05, 0.42), (0.05 + tilt, -0.95), (0.85, 0.42))
    pen.poly("light", (0.3, 0.42), (0.05 + tilt, -0.95), (0.45, 0.42))
    pen.poly("dark", (-0.05, 0.42), (-0.03 + tilt, -0.7), (-0.6, 0.42))
    pen.poly((120, 72, 40), (-0.85, 0.52), (0.98, 0.52), (0.65, 0.95), (-0.6, 0.95))
    pen.limb((230, 220, 200), -0.8, 0.58, 0.9, 0.58, 0.06)


def _airplane(pen: Pen, phase: float) -> None:
    pen.poly("dark", (-0.05, -0.1), (0.25, -0.1), (-0.15, -0.55), (-0.32, -0.55))
    pen.oval("main", 0, 0, 0.95, 0.2)
    pen.poly("main", (-0.92, -0.02), (-0.55, -0.1), (-0.78, -0.55), (-0.98, -0.55))
    pen.poly("dark", (-0.1, 0.05), (0.28, 0.05), (-0.2, 0.68), (-0.4, 0.68))
    pen.oval(_GLASS, 0.7, -0.07, 0.14, 0.07)
    for x in (-0.4, -0.2, 0.0, 0.2, 0.4):
        pen.oval(_GLASS, x, -0.06, 0.055)
    pen.limb("light", -0.8, 0.08, 0.8, 0.08, 0.03)
    blade = 0.3 * cos(2 * pi * phase)
    pen.limb(_DARK, 0.96, -blade, 0.96, blade, 0.05)


def _rocket(pen: Pen, phase: float) -> None:
    flame = 0.2 * sin(2 * pi * phase)
    pen.poly((250, 140, 30), (-0.2, 0.55), (0.2, 0.55), (0, 0.85 + flame * 0.5))
    pen.poly((255, 225, 90), (-0.1, 0.55), (0.1, 0.55), (0, 0.72 + flame * 0.5))
    pen.poly("dark", (-0.24, 0.1), (-0.58, 0.6), (-0.2, 0.5))
    pen.poly("dark", (0.24, 0.1), (0.58, 0.6), (0.2, 0.5))
    pen.oval("main", 0, -0.15, 0.3, 0.8)
    pen.oval("light", -0.12, -0.2, 0.08, 0.55)
    pen.oval(_WHITE, 0, -0.32, 0.16)
    pen.oval((60, 100, 160), 0, -0.32, 0.11)
    pen.box((120, 124, 132), -0.2, 0.5, 0.2, 0.6)


def _balloon(pen: Pen, phase: float) -> None:
    pen.limb(_WOOD, -0.2, 0.25, -0.13, 0.72, 0.025)
    pen.limb(_WOOD, 0.2, 0.25, 0.13, 0.72, 0.025)
    pen.oval("main", 0, -0.3, 0.68, 0.68)
    pen.poly("main", (-0.58, 0.03), (0.58, 0.03), (0.18, 0.45), (-0.18, 0.45))
    pen.oval("dark", 0, -0.3, 0.42, 0.68)
    pen.poly("dark", (-0.35, 0.05), (0.35, 0.05), (0.12, 0.45), (-0.12, 0.45))
    pen.oval("light", 0, -0.3, 0.17, 0.68)
    pen.poly("light", (-0.14, 0.1), (0.14, 0.1), (0.06, 0.45), (-0.06, 0.45))
    pen.box((150, 100, 55), -0.19, 0.7, 0.19, 0.98)
    pen.limb((110, 70, 35), -0.19, 0.78, 0.19, 0.78, 0.04)
    if phase > 0.5:
        pen.poly((255, 190, 60), (-0.06, 0.6), (0.06, 0.6), (0, 0.45))


# --- animals -----------------------------------------------------------------------------------------------------


def _four_legs(pen: Pen, phase: float, xs: tuple[float, float], top: float, width: float, reach: float) -> None:
    """Draw the four legs of a walking animal: the far pair dark, the near pair in the main tone."""
    for tone, shift in (("dark", 0.5), ("main", 0.0)):
        for x, offset in ((xs[0], 0.0), (xs[1], 0.35)):
            angle = 2 * pi * (phase + shift + offset)
            swing, lift = reach * sin(angle), 0.1 * max(0.0, cos(angle))
            pen.curve(tone, [(x, top), (x + 0.5 * swing, (top + 0.95) / 2), (x + swing, 0.93 - lift)], width)


def _eye(pen: Pen, x: float, y: float, radius: float = 0.06) -> None:
    pen.oval(_WHITE, x, y, radius)
    pen.oval((20, 20, 24), x + radius * 0.3, y, radius * 0.55)


def _dog(pen: Pen, phase: float) -> None:
    wag = 0.16 * sin(4 * pi * phase)
    _four_legs(pen, phase, (-0.5, 0.32), 0.25, 0.17, 0.22)
    pen.curve("dark", [(-0.62, 0.05), (-0.82, -0.2), (-0.86 + wag, -0.5)], 0.12)
    pen.oval("main", -0.12, 0.15, 0.58, 0.3)
    pen.oval("light", -0.05, 0.32, 0.36, 0.1)
    pen.limb("main", 0.35, 0.05, 0.5, -0.35, 0.32)
    pen.oval("main", 0.55, -0.42, 0.3, 0.26)
    pen.oval("light", 0.8, -0.33, 0.2, 0.13)
    pen.oval(_DARK, 0.95, -0.38, 0.06)
    pen.oval("dark", 0.36, -0.32, 0.12, 0.28, 0.25)
    _eye(pen, 0.64, -0.5)
    pen.limb((200, 60, 60), 0.28, -0.12, 0.5, -0.02, 0.07)


def _cat(pen: Pen, phase: float) -> None:
    wave = 0.18 * sin(2 * pi * phase)
    _four_legs(pen, phase, (-0.42, 0.3), 0.35, 0.13, 0.18)
    pen.curve("main", [(-0.55, 0.2), (-0.85, 0.05), (-0.8, -0.4), (-0.62 + wave, -0.75)], 0.11)
    pen.oval("main", -0.1, 0.28, 0.52, 0.26)
    for x in (-0.3, -0.1, 0.1):
        pen.limb("dark", x, 0.05, x - 0.04, 0.25, 0.05)
    pen.poly("dark", (0.26, -0.3), (0.3, -0.72), (0.52, -0.45))
    pen.poly("dark", (0.62, -0.45), (0.84, -0.72), (0.86, -0.28))
    pen.oval("main", 0.56, -0.2, 0.35, 0.3)
    for x in (0.44, 0.7):
        pen.oval((190, 230, 120), x, -0.24, 0.08)
        pen.oval((20, 20, 20), x, -0.24, 0.03, 0.07)
    pen.oval((240, 150, 160), 0.58, -0.12, 0.05, 0.035)
    for dy in (-0.04, 0.04):
        pen.limb(_WHITE, 0.66, -0.08, 0.95, -0.08 + dy, 0.02)
        pen.limb(_WHITE, 0.5, -0.08, 0.22, -0.08 + dy, 0.02)


def _horse(pen: Pen, phase: float) -> None:
    flow = 0.08 * sin(4 * pi * phase)
    _four_legs(pen, phase, (-0.5, 0.3), 0.15, 0.13, 0.28)
    pen.curve(_DARK, [(-0.66, -0.05), (-0.85, 0.15 + flow), (-0.88, 0.5 + flow)], 0.14)
    pen.oval("main", -0.12, 0.05, 0.58, 0.27)
    pen.poly("main", (0.1, 0.0), (0.45, 0.15), (0.72, -0.5), (0.45, -0.7))
    pen.curve(_DARK, [(0.5, -0.75), (0.3, -0.5), (0.15 - flow, -0.2)], 0.13)
    pen.limb("main", 0.58, -0.62, 0.88, -0.36, 0.24)
    pen.oval("dark", 0.9, -0.33, 0.12, 0.1)
    pen.poly("main", (0.45, -0.7), (0.5, -0.95), (0.6, -0.72))
    _eye(pen, 0.66, -0.6, 0.05)


def _rabbit(pen: Pen, phase: float) -> None:
    hop = 0.1 * abs(sin(2 * pi * phase))
    pen.oval("dark", -0.3, 0.85, 0.34, 0.13)
    pen.limb("dark", 0.3, 0.5, 0.34, 0.92, 0.14)
    pen.oval("main", -0.2, 0.45 - hop, 0.5, 0.42)
    pen.oval(_WHITE, -0.7, 0.42 - hop, 0.16)
    pen.oval("main", 0.36, 0.02 - hop, 0.32, 0.29)
    for x, tone in ((0.14, "dark"), (0.34, "main")):
        pen.oval(tone, x, -0.5 - hop, 0.11, 0.42, -0.12 + hop)
        pen.oval("light", x + 0.01, -0.48 - hop, 0.05, 0.3, -0.12 + hop)
    pen.limb("main", 0.1, 0.6 - hop, 0.2, 0.92, 0.14)
    _eye(pen, 0.46, -0.03 - hop, 0.07)
    pen.oval((240, 140, 150), 0.67, 0.06 - hop, 0.05)


def _elephant(pen: Pen, phase: float) -> None:
    sway = 0.12 * sin(2 * pi * phase)
    _four_legs(pen, phase, (-0.5, 0.2), 0.3, 0.26, 0.12)
    pen.limb("dark", -0.72, 0.0, -0.85, 0.4, 0.05)
    pen.oval("main", -0.2, 0.05, 0.6, 0.45)
    pen.curve("main", [(0.68, -0.2), (0.88, 0.15), (0.82 + sway, 0.5), (0.9 + sway, 0.72)], 0.18)
    pen.oval("main", 0.5, -0.22, 0.34, 0.36)
    pen.oval("dark", 0.25, -0.18, 0.26, 0.38)
    pen.oval("light", 0.25, -0.18, 0.15, 0.26)
    pen.limb(_WHITE, 0.68, 0.08, 0.9, 0.02, 0.07)
    _eye(pen, 0.6, -0.3, 0.05)


def _bird(pen: Pen, phase: float) -> None:
    flap = sin(2 * pi * phase)
    pen.poly("dark", (-0.1, -0.05), (0.25, -0.05), (-0.25, -0.8 * flap - 0.05), (-0.45, -0.7 * flap))
    pen.poly("dark", (-0.45, 0.0), (-0.98, -0.15), (-0.95, 0.2))
    pen.oval("main", 0, 0.05, 0.52, 0.27, -0.1)
    pen.oval("light", 0.08, 0.18, 0.35, 0.12)
    pen.oval("main", 0.52, -0.14, 0.24)
    pen.poly((245, 170, 40), (0.72, -0.2), (0.99, -0.1), (0.72, -0.04))
    _eye(pen, 0.6, -0.2, 0.06)
    pen.poly("main", (-0.22, 0), (0.22, 0), (-0.05, -0.92 * flap), (-0.32, -0.8 * flap))


def _butterfly(pen: Pen, phase: float) -> None:
    open_ = 0.6 + 0.4 * cos(2 * pi * phase)
    for side in (-1, 1):
        pen.oval("main", side * 0.45 * open_, -0.32, 0.48 * open_, 0.46, side * 0.4)
        pen.oval("dark", side * 0.38 * open_, 0.4, 0.36 * open_, 0.36, -side * 0.4)
        pen.oval("light", side * 0.52 * open_, -0.36, 0.2 * open_, 0.2)
        pen.oval(_WHITE, side * 0.4 * open_, 0.42, 0.1 * open_, 0.1)
        pen.limb(_DARK, 0, -0.45, side * 0.22, -0.9, 0.03)
    pen.oval(_DARK, 0, 0, 0.08, 0.55)


def _fish(pen: Pen, phase: float) -> None:
    wave = 0.16 * sin(2 * pi * phase)
    pen.poly("dark", (-0.45, 0), (-0.98, -0.42 + wave), (-0.8, wave), (-0.98, 0.42 + wave))
    pen.poly("dark", (-0.25, -0.3), (0.3, -0.38), (-0.15, -0.72))
    pen.poly("dark", (-0.1, 0.3), (0.2, 0.32), (-0.12, 0.6))
    pen.oval("main", 0.1, 0, 0.72, 0.42)
    for x in (-0.25, 0.0, 0.25):
        pen.oval("light", x, 0, 0.05, 0.33 - abs(x) * 0.2)
    pen.poly("dark", (0.1, 0.05), (-0.15, 0.3 + wave * 0.5), (0.2, 0.22))
    _eye(pen, 0.56, -0.1, 0.1)
    pen.limb(_DARK, 0.68, 0.14, 0.8, 0.08, 0.03)


def _turtle(pen: Pen, phase: float) -> None:
    flesh = (150, 165, 90)
    for x, offset in ((-0.45, 0.0), (0.35, 0.5)):
        pen.limb(flesh, x, 0.55, x + 0.15 * sin(2 * pi * (phase + offset)), 0.9, 0.2)
    pen.limb(flesh, 0.5, 0.4, 0.8, 0.12, 0.2)
    pen.oval(flesh, 0.82, 0.08, 0.18, 0.15)
    _eye(pen, 0.88, 0.04, 0.05)
    pen.poly(flesh, (-0.7, 0.55), (-0.98, 0.68), (-0.68, 0.7))
    pen.wedge("main", -0.08, 0.6, 0.76, pi, 2 * pi)
    pen.limb("dark", -0.8, 0.6, 0.64, 0.6, 0.13)
    for x, y in ((-0.42, 0.3), (-0.08, 0.12), (0.26, 0.3), (-0.08, 0.42)):
        pen.poly("light", *_regular(6, 0.14, 0.0, x, y))


# --- objects -----------------------------------------------------------------------------------------------------


def _ball(pen: Pen, phase: float) -> None:
    pen.oval("main", 0, 0.08, 0.9)
    for slice_ in range(3):
        start = 2 * pi * slice_ / 3
        pen.wedge(_WHITE if slice_ == 0 else "light", 0, 0.08, 0.9, start, start + pi / 3)
    pen.oval("dark", 0, 0.08, 0.16)


def _mug(pen: Pen, phase: float) -> None:
    pen.oval("dark", 0.6, 0.25, 0.34, 0.4)
    pen.oval((225, 225, 225), 0.6, 0.25, 0.18, 0.24)
    pen.box("main", -0.62, -0.35, 0.55, 0.9)
    pen.oval("main", -0.03, 0.88, 0.585, 0.1)
    pen.oval("light", -0.03, -0.35, 0.585, 0.15)
    pen.oval((80, 48, 28), -0.03, -0.33, 0.48, 0.1)
    pen.box("dark", -0.62, 0.3, 0.55, 0.46)
    for x in (-0.25, 0.15):
        drift = 0.08 * sin(2 * pi * (phase + x))
        pen.curve((215, 215, 220), [(x, -0.5), (x + drift, -0.7), (x - drift, -0.92)], 0.05)


def _umbrella(pen: Pen, phase: float) -> None:
    pen.limb(_WOOD, 0, -0.8, 0, 0.8, 0.06)
    pen.curve(_WOOD, [(0, 0.8), (0.08, 0.93), (0.2, 0.92), (0.25, 0.78)], 0.06)
    pen.wedge("main", 0, 0.02, 0.92, pi, 2 * pi)
    pen.wedge("dark", 0, 0.02, 0.92, 1.25 * pi, 1.42 * pi)
    pen.wedge("light", 0, 0.02, 0.92, 1.58 * pi, 1.75 * pi)
    for x in (-0.69, -0.23, 0.23, 0.69):
        pen.oval("dark", x, 0.03, 0.22, 0.07)


def _lamp(pen: Pen, phase: float) -> None:
    glow = 200 + int(50 * sin(2 * pi * phase))
    pen.oval((90, 82, 74), 0, 0.92, 0.42, 0.09)
    pen.limb((110, 100, 90), 0, 0.9, 0, 0.0, 0.09)
    pen.oval((255, 240, glow), 0, 0.02, 0.58, 0.13)
    pen.poly("main", (-0.35, -0.9), (0.35, -0.9), (0.68, 0.02), (-0.68, 0.02))
    pen.poly("light", (-0.2, -0.9), (0.0, -0.9), (0.0, 0.02), (-0.4, 0.02))
    pen.limb("dark", -0.66, 0.02, 0.66, 0.02, 0.06)


def _gift(pen: Pen, phase: float) -> None:
    ribbon = (250, 215, 70) if pen.tones["main"][2] > 60 or pen.tones["main"][0] < 180 else (70, 90, 200)
    pen.box("main", -0.75, -0.2, 0.75, 0.98)
    pen.box("dark", 0.35, -0.1, 0.75, 0.98)
    pen.box("light", -0.85, -0.38, 0.85, -0.08)
    pen.box(ribbon, -0.13, -0.38, 0.13, 0.98)
    pen.oval(ribbon, -0.3, -0.58, 0.3, 0.17, 0.5)
    pen.oval(ribbon, 0.3, -0.58, 0.3, 0.17, -0.5)
    pen.oval("main", -0.3, -0.58, 0.15, 0.07, 0.5)
    pen.oval("main", 0.3, -0.58, 0.15, 0.07, -0.5)


def _guitar(pen: Pen, phase: float) -> None:
    pen.limb((70, 46, 30), 0, 0.1, 0, -0.78, 0.13)
    pen.box((50, 34, 24), -0.13, -0.99, 0.13, -0.74)
    pen.oval("dark", 0, 0.56, 0.52, 0.42)
    pen.oval("main", 0, 0.54, 0.46, 0.38)
    pen.oval("main", 0, 0.08, 0.34, 0.3)
    pen.oval((30, 22, 18), 0, 0.28, 0.15)
    pen.box((50, 34, 24), -0.2, 0.66, 0.2, 0.74)
    for x in (-0.05, 0.0, 0.05):
        pen.limb((225, 225, 215), x, 0.7, x, -0.9, 0.015)


def _chair(pen: Pen, phase: float) -> None:
    for x in (-0.42, 0.3):
        pen.limb("dark", x + 0.12, 0.2, x + 0.12, 0.8, 0.09)
    pen.box("main", -0.55, -0.95, -0.38, 0.2)
    pen.box("main", 0.32, -0.95, 0.49, 0.2)
    for y in (-0.9, -0.62, -0.34):
        pen.box("light", -0.5, y, 0.45, y + 0.15)
    pen.poly("main", (-0.6, 0.1), (0.55, 0.1), (0.7, 0.34), (-0.72, 0.34))
    pen.box("dark", -0.72, 0.34, 0.7, 0.42)
    for x in (-0.62, 0.6):
        pen.limb("main", x, 0.4, x, 0.94, 0.12)


def _key(pen: Pen, phase: float) -> None:
    pen.oval("main", -0.5, 0, 0.46)
    pen.oval("dark", -0.5, 0, 0.34)
    pen.oval((200, 200, 205), -0.5, 0, 0.2)
    pen.limb("main", -0.1, 0, 0.9, 0, 0.16)
    for x in (0.5, 0.72, 0.9):
        pen.limb("dark", x, 0, x, 0.32, 0.12)
    pen.limb("light", -0.05, -0.04, 0.88, -0.04, 0.04)


# --- abstract ----------------------------------------------------------------------------------------------------


def _spiral(pen: Pen, phase: float) -> None:
    for turn, tone in ((0.0, "main"), (pi, "light")):
        angle = np.linspace(0, 4.5 * pi, 70)
        radius = 0.04 + 0.84 * angle / angle[-1]
        points = list(zip(radius * np.cos(angle + turn), radius * np.sin(angle + turn), strict=True))
        pen.curve(tone, points, 0.1)


def _star(pen: Pen, phase: float) -> None:
    polar = [(pi * k / 5 - pi / 2, 0.42 if k % 2 else 0.98) for k in range(10)]
    corners = [(radius * cos(angle), radius * sin(angle)) for angle, radius in polar]
    pen.poly("main", *corners)
    for k in range(0, 10, 2):
        pen.poly("light", (0, 0), corners[k], corners[(k + 1) % 10])
    pen.poly("dark", *_regular(5, 0.2, pi / 2))


def _ring(pen: Pen, phase: float) -> None:
    pen.oval("main", 0, 0, 0.95)
    for stripe in range(0, 12, 2):
        pen.wedge("light" if stripe else "dark", 0, 0, 0.95, 2 * pi * stripe / 12, 2 * pi * (stripe + 1) / 12)
    axis = (np.arange(pen.size) + 0.5) / pen.size * 2 - 1
    pen.canvas[axis[:, None] ** 2 + axis**2 < (0.94 * 0.52) ** 2] = 0  # the hole


def _cube(pen: Pen, phase: float) -> None:
    hexagon = _regular(6, 0.95, pi / 6)
    for tone, corner in (("dark", 0), ("main", 2), ("light", 4)):
        face = np.array([(0, 0), *(hexagon[(corner + k) % 6] for k in (-1, 0, 1))])
        pen.poly(tone, *face)
        middle = face.mean(axis=0)
        pen.poly("main" if tone != "main" else "dark", *(middle + 0.35 * (face - middle)))


def _triangle(pen: Pen, phase: float) -> None:
    for radius, tone in ((0.98, "main"), (0.68, "light"), (0.44, "dark"), (0.22, "main")):
        pen.poly(tone, *_regular(3, radius, -pi / 2, 0, 0.15))


def _mandala(pen: Pen, phase: float) -> None:
    for count, ring, rx, ry, tone in (
        (12, 0.68, 0.28, 0.13, "dark"),
        (8, 0.46, 0.26, 0.15, "main"),
        (6, 0.24, 0.2, 0.11, "light"),
    ):
        for petal in range(count):
            angle = 2 * pi * petal / count
            pen.oval(tone, ring * cos(angle), ring * sin(angle), rx, ry, angle)
    pen.oval("main", 0, 0, 0.14)
    pen.oval(_WHITE, 0.9, 0, 0.08)


def _wave(pen: Pen, phase: float) -> None:
    xs = np.linspace(-0.9, 0.9, 30)
    for shift, tone in ((0.3, "dark"), (0.0, "main"), (-0.25, "light")):
        ys = 0.38 * np.sin(2 * pi * (xs + phase)) + shift
        pen.curve(tone, list(zip(xs, ys, strict=True)), 0.2)


DRAWERS: dict[str, Callable[[Pen, float], None]] = {
    drawer.__name__.removeprefix("_"): drawer
    for drawer in (
        _tree, _flower, _mushroom, _cactus, _cloud, _leaf, _crystal,
        _man, _woman, _child, _dancer, _astronaut, _wizard,
        _car, _bus, _robot, _sailboat, _airplane, _rocket, _balloon,
        _dog, _cat, _horse, _rabbit, _elephant, _bird, _butterfly, _fish, _turtle,
        _ball, _mug, _umbrella, _lamp, _gift, _guitar, _chair, _key,
        _spiral, _star, _ring, _cube, _triangle, _mandala, _wave,
    )
}  # fmt: skip

STIFF = {"ball", "umbrella", "gift", "guitar", "chair", "key", "spiral", "star", "ring", "cube", "triangle", "mandala"}


def _shade(sprite: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """The sprite with light from the upper left, a darker rim, a slight surface texture and a dark outline."""
    size = sprite.shape[0]
    solid = (sprite[..., 3] > 127).astype(np.uint8)
    depth = cv2.distanceTransform(np.pad(solid, 1), cv2.DIST_L2, 3)[1:-1, 1:-1] / (0.12 * size)
    slope = np.linspace(1.14, 0.86, size, dtype=np.float32)
    light = (0.8 + 0.2 * np.minimum(depth, 1)) * (0.5 * (slope[:, None] + slope[None])) * texture
    alpha = sprite[..., 3].astype(np.float32)
    rim = cv2.dilate(sprite[..., 3], np.ones((3, 3), np.uint8)) * (0.75 - 0.75 / 255 * alpha)
    whole = np.empty((size, size, 4), np.float32)
    whole[..., 3] = alpha + rim
    whole[..., :3] = np.minimum(sprite[..., :3] * light[..., None], alpha[..., None]) + rim[..., None] * (28 / 255)
    return (whole + 0.5).astype(np.uint8)


def make_sprite(subject: str, colour: str, size: int, look: int, phase: int) -> np.ndarray:
    """The sprite (size, size, 4) of a subject at one of the NUM_PHASES phases of its movement."""
    pen = Pen(size * (3 if size < 70 else 2), colour, look)
    DRAWERS[subject](pen, phase / NUM_PHASES)
    noise = np.random.default_rng(look).random((max(size // 5, 2),) * 2, np.float32)
    texture = 0.93 + 0.14 * cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    return _shade(cv2.resize(pen.canvas, (size, size), interpolation=cv2.INTER_AREA), texture)
