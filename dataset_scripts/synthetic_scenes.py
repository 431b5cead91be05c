"""Draws the frames of a scene: the camera's view of the background, the moving subjects, and the look of the shot.

The only failures drawn here are the aesthetic ones of `Framing`. `synthetic_failures` adds all others.
"""

from dataclasses import dataclass, field
from math import pi, sin

import cv2
import numpy as np

from .synthetic_backgrounds import PAINTERS, Layer, compose
from .synthetic_prompts import BACKGROUNDS, SUBJECTS, Scene, backgrounds_for, colours_on
from .synthetic_subjects import NUM_PHASES, STIFF, make_sprite

NUM_FRAMES = 16

# (size of one subject, reach of its movement, places from the group's centre) by count, as shares of the frame.
_GROUPS = {
    1: (0.5, 0.44, ((0.0, 0.0),)),
    2: (0.36, 0.26, ((-0.2, 0.0), (0.2, 0.03))),
    3: (0.28, 0.2, ((-0.27, 0.0), (0.0, 0.04), (0.27, -0.01))),
    5: (0.23, 0.2, ((-0.15, -0.22), (0.15, -0.22), (-0.28, 0.03), (0.0, 0.04), (0.28, 0.03))),
}


@dataclass(frozen=True)
class Shot:
    """Random choices of one clip that affect no quality. They keep simple statistics from predicting the quality."""

    look: int
    mirrored: bool
    pan: float
    speed: float
    size: float
    shift: tuple[float, float]
    faces_left: bool
    bokeh: float
    gamma: float
    saturation: float
    tint: tuple[float, float, float]
    extra: tuple[str, str, float] | None


@dataclass(frozen=True)
class Framing:
    """Aesthetic failures: size factor and shift of the subject, tilt in degrees, severity of clutter and of clashes."""

    size: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    tilt: float = 0.0
    clutter: float = 0.0
    clash: float = 0.0


@dataclass
class Assets:
    """The backgrounds and the sprites of one prompt, painted once for all generators."""

    seed: np.random.SeedSequence
    size: int
    _layers: dict[str, list[Layer]] = field(default_factory=dict)
    _sprites: dict[tuple, np.ndarray] = field(default_factory=dict)

    def layers(self, background: str) -> list[Layer]:
        """The layers of a background. They do not depend on the backgrounds that were painted before."""
        if background not in self._layers:
            key = (*self.seed.spawn_key, list(BACKGROUNDS).index(background))
            rng = np.random.default_rng(np.random.SeedSequence(self.seed.entropy, spawn_key=key))
            self._layers[background] = PAINTERS[background](rng, self.size)
        return self._layers[background]

    def sprite(self, subject: str, colour: str, pixels: int, look: int, phase: int) -> np.ndarray:
        """The sprite of a subject, `pixels` wide. Only people have different looks, only movable things have phases."""
        look = look if SUBJECTS[subject].category == "human" else 0
        key = (subject, colour, pixels, look, 0 if subject in STIFF else phase)
        if key not in self._sprites:
            self._sprites[key] = make_sprite(*key)
        return self._sprites[key]


def sample_shot(scene: Scene, rng: np.random.Generator) -> Shot:
    """Draw the random choices for a clip of a scene."""
    extra = None
    if rng.random() < 0.3:
        names = [name for name in SUBJECTS if name != scene.subject and scene.background in backgrounds_for(name)]
        colours = [colour for colour in colours_on(scene.background) if colour != scene.colour]
        extra = (str(rng.choice(names)), str(rng.choice(colours)), float(rng.choice([-0.42, 0.42])))
    return Shot(
        look=int(rng.integers(4)),
        mirrored=bool(rng.random() < 0.5),
        pan=float(rng.choice([-1, 1]) * rng.uniform(0.0, 0.12)),
        speed=float(rng.uniform(0.75, 1.1)),
        size=float(rng.choice([0.9, 1.0, 1.1])),
        shift=(float(rng.uniform(-0.03, 0.03)), float(rng.uniform(-0.03, 0.03))),
        faces_left=bool(rng.random() < 0.5),
        bokeh=float(rng.uniform(1.0, 3.0)) if rng.random() < 0.35 else 0.0,
        gamma=float(rng.uniform(0.9, 1.12)),
        saturation=float(rng.uniform(0.85, 1.2)),
        tint=tuple(float(x) for x in rng.uniform(0.96, 1.04, 3)),
        extra=extra,
    )


def paste(frame: np.ndarray, sprite: np.ndarray, x: float, y: float) -> None:
    """Paste a premultiplied sprite into a frame, with its centre at pixel (x, y). Parts outside the frame are cut."""
    height, width = sprite.shape[:2]
    left, top = round(x - width / 2), round(y - height / 2)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, frame.shape[1]), min(top + height, frame.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    part = sprite[y0 - top : y1 - top, x0 - left : x1 - left]
    under = cv2.cvtColor(255 - part[..., 3], cv2.COLOR_GRAY2RGB)
    kept = cv2.multiply(frame[y0:y1, x0:x1], under, scale=1 / 255)
    frame[y0:y1, x0:x1] = cv2.add(kept, cv2.cvtColor(part, cv2.COLOR_RGBA2RGB))


def _shadow(pixels: int) -> np.ndarray:
    """A soft flat shadow as a sprite."""
    ys, xs = np.mgrid[-1 : 1 : max(pixels // 4, 4) * 1j, -1 : 1 : pixels * 1j]
    alpha = np.clip(1.1 - np.hypot(xs * 1.15, ys), 0, 1) * 120
    return np.dstack([np.zeros((*alpha.shape, 3)), alpha]).astype(np.uint8)


def _progress(motion: str, t: int, reach: float) -> tuple[float, float, float, float]:
    """Shift in x and y (as shares of the frame), turn in degrees, and scale of a motion at frame t."""
    u = t / (NUM_FRAMES - 1)
    if motion in ("left", "right"):
        return (u - 0.5) * reach * (1 if motion == "right" else -1), 0.0, 0.0, 1.0
    if motion in ("rise", "fall"):
        return 0.0, (u - 0.5) * 0.85 * reach * (1 if motion == "fall" else -1), 0.0, 1.0
    if motion == "spin":
        return 0.0, 0.0, 360 * u * 0.9375, 1.0
    if motion == "bounce":
        return 0.0, -0.15 * abs(sin(pi * t / 5)), 0.0, 1.0
    if motion == "grow":
        return 0.0, 0.0, 0.0, 0.5 + 0.6 * u
    return 0.0, 0.0, 0.0, 1.0


def _turned(sprite: np.ndarray, degrees: float, scale: float) -> np.ndarray:
    """The sprite turned clockwise about its centre and scaled, on a square that contains it."""
    size = sprite.shape[0]
    if scale < 1 and not degrees:
        side = max(round(size * scale), 2)
        return cv2.resize(sprite, (side, side), interpolation=cv2.INTER_AREA)
    side = int(np.ceil(size * scale * (1.42 if degrees else 1.0)))
    matrix = cv2.getRotationMatrix2D((size / 2 - 0.5, size / 2 - 0.5), -degrees, scale)
    matrix[:, 2] += side / 2 - size / 2
    return cv2.warpAffine(sprite, matrix, (side, side), flags=cv2.INTER_LINEAR)


def _phase(motion: str, t: int, member: int, grounded: bool) -> int:
    """The phase of a subject's own movement, for example its legs: small movements if it stays in its place."""
    if motion in ("still", "bounce", "spin") and grounded:
        return (0, 0, 1, 1, 0, 0, 7, 7)[(t + member) % 8]
    return (t + 3 * member) % NUM_PHASES


def _draw_group(frames: np.ndarray, scene: Scene, shot: Shot, framing: Framing, assets: Assets) -> None:
    """Draw the subjects of a scene into frames (T, S, S, 3), in place."""
    size = assets.size
    share, reach, places = _GROUPS[scene.count]
    scale = shot.size * framing.size
    pixels = max(int(share * scale * size) // 2 * 2, 8)
    subject = SUBJECTS[scene.subject]
    on_ground = subject.grounded and BACKGROUNDS[scene.background].has_ground
    lean = {"left": -65, "right": 65}.get(scene.motion, 0) if scene.subject == "rocket" else 0
    faces_left = scene.motion == "left" or (scene.motion != "right" and shot.faces_left)
    base = 0.9 - share * scale / 2 if on_ground else 0.47
    shadow = _shadow(pixels) if on_ground else None
    reach *= shot.speed * min(framing.size, 1.0)
    for t in range(NUM_FRAMES):
        dx, dy, turn, grow = _progress(scene.motion, t, reach)
        if on_ground and scene.motion in ("rise", "fall"):
            dy -= 0.42 * reach
        for member, (px, py) in enumerate(places):
            hop = dy if scene.motion != "bounce" else _progress("bounce", t + 2 * member, reach)[1]
            x = (0.5 + shot.shift[0] + framing.shift[0] + px * scale + dx) * size
            y = (base + shot.shift[1] + framing.shift[1] + py * scale) * size
            if shadow is not None:
                paste(frames[t], shadow, x, y + pixels * 0.47)
            if on_ground and grow != 1.0:
                y += pixels * (1 - grow) * 0.47
            phase = _phase(scene.motion, t, member, subject.grounded)
            sprite = assets.sprite(scene.subject, scene.colour, pixels, shot.look, phase)
            if faces_left:
                sprite = cv2.flip(sprite, 1)
            if turn or lean or grow != 1.0:
                sprite = _turned(sprite, turn + lean, grow)
            paste(frames[t], sprite, x, y + hop * size)


def _draw_extra(frames: np.ndarray, scene: Scene, shot: Shot, assets: Assets) -> None:
    """Draw a small thing at the side that no prompt mentions, in place."""
    subject, colour, x = shot.extra
    pixels = int(0.15 * assets.size)
    on_ground = BACKGROUNDS[scene.background].has_ground and SUBJECTS[subject].grounded
    y = 0.68 if on_ground else 0.16
    for t, frame in enumerate(frames):
        sprite = assets.sprite(subject, colour, pixels, shot.look, _phase("still", t, 0, True))
        paste(frame, sprite, (0.5 + x) * assets.size, y * assets.size)


def _junk(size: int, amount: float, rng: np.random.Generator, front: bool) -> np.ndarray:
    """An overlay (size, size, 4) of poles, crates, signs, cables and litter."""
    layer = np.zeros((size, size, 4), np.uint8)
    count = round((3 + 9 * amount) * (0.5 if front else 1.3))
    for _ in range(count):
        colour = (*(float(c) for c in rng.integers(30, 240, 3)), 255.0)
        edge = rng.random() < 0.5
        x = (rng.random() * 0.24 + (0.0 if edge else 0.76) if front else rng.random()) * size
        y = (0.3 + 0.7 * rng.random()) * size
        wide = (0.03 + 0.07 * rng.random()) * size
        kind = rng.integers(4)
        if kind == 0:
            cv2.rectangle(layer, (int(x), 0 if front else int(y - 4 * wide)), (int(x + wide / 4), size), colour, -1)
        elif kind == 1:
            corners = (int(x - wide), int(y - wide)), (int(x + wide), int(y + wide * 0.7))
            cv2.rectangle(layer, *corners, colour, -1)
            cv2.rectangle(layer, *corners, (20, 20, 20, 255), 1)
            cv2.line(layer, *corners, (20, 20, 20, 255), 1)
        elif kind == 2:
            points = np.array([x, y]) + rng.normal(0, wide, (4, 2))
            cv2.fillPoly(layer, [points.astype(np.int32)], colour, cv2.LINE_AA)
        else:
            knots = np.linspace(0, size, 24)
            sag = y * 0.5 + 0.06 * size * np.sin(knots / size * 7 + x)
            line = np.stack([knots, sag], 1).astype(np.int32)
            cv2.polylines(layer, [line], False, (30, 30, 30, 255), max(size // 128, 1), cv2.LINE_AA)
    return layer


def _styled(layers: list[Layer], shot: Shot, framing: Framing, unit: float) -> list[Layer]:
    """The layers as a clip shows them: mirrored, out of focus or in clashing colours."""
    styled = []
    for image, depth in layers:
        if shot.mirrored:
            image = cv2.flip(image, 1)
        if shot.bokeh:
            image = cv2.GaussianBlur(image, (0, 0), shot.bokeh * unit)
        if framing.clash:
            image = _clashing(image, framing.clash, shot.look)
        styled.append((image, depth))
    return styled


_CLASHES = (((90, 120, 0), (255, 60, 210)), ((150, 0, 110), (185, 255, 40)), ((0, 125, 150), (255, 120, 30)))


def _clashing(image: np.ndarray, amount: float, look: int) -> np.ndarray:
    """Blend a background towards two clashing colours."""
    dark, bright = (np.array(colour, np.float32) for colour in _CLASHES[look % len(_CLASHES)])
    level = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    table = ((1 - level) * dark + level * bright).astype(np.uint8)[None]
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGBA2RGB), cv2.COLOR_RGB2GRAY)
    tinted = cv2.LUT(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), table)
    tinted = cv2.multiply(tinted, cv2.cvtColor(image[..., 3], cv2.COLOR_GRAY2RGB), scale=1 / 255)
    share = 0.35 + 0.5 * amount
    rgb = cv2.addWeighted(cv2.cvtColor(image, cv2.COLOR_RGBA2RGB), 1 - share, tinted, share, 0)
    return np.dstack([np.minimum(rgb, image[..., 3:]), image[..., 3]])


def _tilted(frames: np.ndarray, degrees: float) -> np.ndarray:
    """The frames turned about the centre and enlarged just enough to fill the corners."""
    size = frames.shape[1]
    angle = np.deg2rad(abs(degrees))
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), degrees, float(np.cos(angle) + np.sin(angle)))
    return np.stack(
        [cv2.warpAffine(f, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT) for f in frames]
    )


def grade(frames: np.ndarray, saturation: float, table: np.ndarray) -> np.ndarray:
    """Apply a saturation factor and a look-up table (256, 3) to frames (T, S, S, 3)."""
    flat = frames.reshape(-1, frames.shape[2], 3)
    if abs(saturation - 1) > 0.02:
        luma = np.array([0.299, 0.587, 0.114], np.float32)
        flat = cv2.transform(flat, (saturation * np.eye(3) + (1 - saturation) * luma[None]).astype(np.float32))
    return cv2.LUT(flat, np.clip(table, 0, 255).astype(np.uint8)[None]).reshape(frames.shape)


def draw_scene(scene: Scene, shot: Shot, framing: Framing, assets: Assets, rng: np.random.Generator) -> np.ndarray:
    """The frames (16, size, size, 3), uint8, of a scene before grading and technical failures."""
    size = assets.size
    layers = _styled(assets.layers(scene.background), shot, framing, size / 256)
    offsets = np.linspace(-0.5, 0.5, NUM_FRAMES) * shot.pan * size
    frames = compose(layers, offsets, size)
    if framing.clutter:
        behind, front = (_junk(size, framing.clutter, rng, front) for front in (False, True))
        for frame in frames:
            paste(frame, behind, size / 2, size / 2)
    if shot.extra:
        _draw_extra(frames, scene, shot, assets)
    _draw_group(frames, scene, shot, framing, assets)
    if framing.clutter:
        for frame in frames:
            paste(frame, front, size / 2, size / 2)
    return _tilted(frames, framing.tilt) if framing.tilt else frames


def shot_table(shot: Shot) -> np.ndarray:
    """The look-up table (256, 3) for a shot's gamma and tint."""
    level = np.linspace(0, 1, 256)[:, None]
    return 255 * level**shot.gamma * np.array(shot.tint)
