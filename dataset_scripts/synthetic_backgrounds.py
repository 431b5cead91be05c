"""The backgrounds of the synthetic benchmark: textured layers at different depths, wider than the frame, for parallax.

A layer is (image, depth). The image is (size, WIDTH * size, 4), uint8, RGB premultiplied by alpha. A layer of depth 0
stands still, one of depth 1 moves with the camera. A painter returns the layers from the farthest to the nearest; the
first layer is opaque.
"""

from collections.abc import Callable

import cv2
import numpy as np

WIDTH = 1.4
Layer = tuple[np.ndarray, float]
RGB = tuple[float, float, float]


def fractal(rng: np.random.Generator, height: int, width: int, cells: float, octaves: int = 4) -> np.ndarray:
    """A smooth random texture (height, width), float32, mean about 0, range about -1..1.

    Args:
        cells: number of cells of the coarsest octave over the height. Every further octave has twice as many cells and
            half the weight.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        rows = max(int(cells * 2**octave), 2)
        grid = rng.random((rows, max(int(rows * width / height), 2)), np.float32) - 0.5
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return total


def _gradient(size: int, stops: list[tuple[float, RGB]]) -> np.ndarray:
    """A vertical gradient (size, WIDTH * size, 3), float32, through the stops (height 0..1, colour)."""
    heights, colours = zip(*stops, strict=True)
    rows = np.linspace(0, 1, size)
    column = np.stack([np.interp(rows, heights, np.array(colours)[:, c]) for c in range(3)], 1).astype(np.float32)
    return np.repeat(column[:, None], int(WIDTH * size), 1)


def _opaque(image: np.ndarray) -> np.ndarray:
    """An opaque RGBA layer from an RGB float image."""
    rgb = np.clip(image, 0, 255).astype(np.uint8)
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


def _masked(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A premultiplied RGBA layer from an RGB float image and a mask (0..1)."""
    alpha = np.clip(mask, 0, 1)[..., None]
    return (np.dstack([np.clip(image, 0, 255), np.full(mask.shape, 255.0)]) * alpha).astype(np.uint8)


def _below(line: np.ndarray, size: int) -> np.ndarray:
    """A mask (size, width) that is 1 below a line of heights in pixels, with a soft edge of one pixel."""
    return np.clip(np.arange(size)[:, None] - line[None] + 0.5, 0, 1).astype(np.float32)


def _ridge(rng: np.random.Generator, size: int, level: float, height: float, cells: float, octaves: int) -> np.ndarray:
    """A skyline (width,) in pixels around `level` (a share of the height)."""
    width = int(WIDTH * size)
    profile = np.zeros(width)
    for octave in range(octaves):
        knots = max(int(cells * 2**octave), 3)
        values = rng.random(knots) - 0.5
        profile = profile + np.interp(np.linspace(0, knots - 1, width), np.arange(knots), values) * 0.55**octave
    return (level * size + height * size * profile).astype(np.float32)


def _ground(rng: np.random.Generator, size: int, top: float, near: RGB, far: RGB, grain: float, cells: float) -> Layer:
    """A textured ground below `top` (a share of the height); the texture gets finer towards the horizon."""
    width = int(WIDTH * size)
    rows = size - int(top * size)
    texture = cv2.resize(fractal(rng, rows * 2, width, cells * 2, 4), (width, rows), interpolation=cv2.INTER_AREA)
    fade = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    image = np.zeros((size, width, 3), np.float32)
    image[-rows:] = (np.array(far, np.float32) * (1 - fade) + np.array(near, np.float32) * fade) * (
        1 + grain * texture[..., None] * (0.4 + 0.6 * fade)
    )
    mask = np.zeros((size, width), np.float32)
    mask[-rows:] = 1
    return _masked(image, mask), 1.0


def _clouded(rng: np.random.Generator, image: np.ndarray, amount: float, colour: RGB = (255, 255, 255)) -> np.ndarray:
    """Add soft clouds to the upper half of a sky."""
    height, width = image.shape[:2]
    cover = np.clip(fractal(rng, height, width, 3, 5) * 2.2 - 0.1, 0, 1) * np.linspace(1, 0, height)[:, None] * amount
    return image + (np.array(colour, np.float32) - image) * cover[..., None].astype(np.float32)


def _glow(
    image: np.ndarray, x: float, y: float, radius: float, colour: RGB, halo: float = 2.5, disc: bool = True
) -> None:
    """Paint a bright disc with a halo, or the halo alone; x is a share of the width, y and radius of the height."""
    height, width = image.shape[:2]
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    distance = np.hypot(xs - x * width, ys - y * height) / (radius * height)
    weight = 0.5 * np.exp(-(distance**2) / halo**2)
    if disc:
        weight = np.maximum(weight, np.clip((1.05 - distance) * 10, 0, 1))
    image += (np.array(colour, np.float32) - image) * weight[..., None]


def _beach(rng: np.random.Generator, size: int) -> list[Layer]:
    sky = _clouded(rng, _gradient(size, [(0, (95, 165, 235)), (0.45, (195, 225, 245)), (1, (195, 225, 245))]), 0.8)
    width = int(WIDTH * size)
    waves = fractal(rng, size, width // 4, 24, 2)
    sea = _gradient(size, [(0.4, (25, 95, 150)), (0.62, (70, 175, 190)), (1, (90, 190, 195))])
    sea *= 1 + 0.35 * cv2.resize(waves, (width, size), interpolation=cv2.INTER_LINEAR)[..., None]
    foam = _ridge(rng, size, 0.6, 0.03, 5, 3)
    sand = _gradient(size, [(0.55, (215, 190, 140)), (1, (242, 220, 170))])
    sand *= 1 + 0.16 * fractal(rng, size, width, 10, 5)[..., None]
    white = np.full_like(sand, 245)
    shore = [(_masked(white, _below(foam, size)), 0.6), (_masked(sand, _below(foam + 0.02 * size, size)), 1.0)]
    return [(_opaque(sky), 0.1), (_masked(sea, _below(np.full(width, 0.42 * size), size)), 0.4), *shore]


def _meadow(rng: np.random.Generator, size: int) -> list[Layer]:
    sky = _clouded(rng, _gradient(size, [(0, (110, 175, 240)), (0.55, (215, 235, 250)), (1, (215, 235, 250))]), 0.9)
    hills = _gradient(size, [(0.3, (120, 170, 120)), (0.7, (90, 150, 80))])
    hills *= 1 + 0.15 * fractal(rng, size, hills.shape[1], 8, 4)[..., None]
    grass, depth = _ground(rng, size, 0.56, (70, 140, 45), (125, 180, 80), 0.5, 14)
    for _ in range(260):
        x, y = rng.random() * grass.shape[1], size * (0.62 + 0.38 * rng.random())
        length = 0.03 * size * (y / size)
        shade = (90 + 60 * rng.random(), 150 + 60 * rng.random(), 50, 255)
        tip = (int(x + length * (rng.random() - 0.5)), int(y - length))
        cv2.line(grass, (int(x), int(y)), tip, shade, max(size // 256, 1))
    return [
        (_opaque(sky), 0.1),
        (_masked(hills, _below(_ridge(rng, size, 0.46, 0.14, 3, 3), size)), 0.4),
        (grass, depth),
    ]


def _pines(rng: np.random.Generator, size: int, count: int, base: float, height: float, colour: RGB) -> np.ndarray:
    """A row of pines on a transparent layer."""
    layer = np.zeros((size, int(WIDTH * size), 4), np.uint8)
    for x in np.linspace(0, layer.shape[1], count) + rng.normal(0, 0.04 * size, count):
        tall = height * size * (0.75 + 0.5 * rng.random())
        shade = (*tuple(np.array(colour) * (0.8 + 0.4 * rng.random())), 255)
        bottom = base * size
        trunk = (int(x - 0.012 * size), int(bottom - 0.2 * tall)), (int(x + 0.012 * size), int(bottom))
        cv2.rectangle(layer, *trunk, (60, 44, 34, 255), -1)
        for tier in range(4):
            top, low = bottom - tall + tier * 0.2 * tall, bottom - tall + (tier + 1.4) * 0.22 * tall
            half = (0.1 + 0.07 * tier) * tall
            points = np.array([(x, top), (x - half, low), (x + half, low)], np.int32)
            cv2.fillPoly(layer, [points], shade, cv2.LINE_AA)
    return layer


def _forest(rng: np.random.Generator, size: int) -> list[Layer]:
    sky = _gradient(size, [(0, (120, 150, 150)), (0.6, (200, 215, 205)), (1, (160, 180, 165))])
    floor = _ground(rng, size, 0.62, (58, 62, 34), (84, 96, 62), 0.7, 12)
    far = _pines(rng, size, 22, 0.66, 0.45, (96, 128, 112))
    near = _pines(rng, size, 12, 0.7, 0.68, (34, 74, 48))
    return [(_opaque(sky), 0.05), (far, 0.3), floor, (near, 0.7)]


def _desert(rng: np.random.Generator, size: int) -> list[Layer]:
    sky = _gradient(size, [(0, (85, 150, 220)), (0.5, (240, 225, 190)), (1, (240, 225, 190))])
    _glow(sky, 0.2 + 0.6 * rng.random(), 0.16, 0.06, (255, 250, 215))
    layers: list[Layer] = [(_opaque(sky), 0.05)]
    for level, depth, colour in ((0.5, 0.3, (205, 150, 95)), (0.6, 0.6, (222, 170, 105)), (0.7, 1.0, (236, 190, 120))):
        line = _ridge(rng, size, level, 0.16, 3, 2)
        line = cv2.GaussianBlur(line[None], (0, 0), 0.04 * size)[0]
        dune = np.full((size, line.size, 3), colour, np.float32)
        depths = np.arange(size)[:, None] - line[None]
        ripples = np.sin(depths * (300 / size) + 5 * fractal(rng, size, line.size, 3, 2))
        slope = np.gradient(line)[None, :, None] * 0.25
        dune *= 1 - slope + 0.05 * ripples[..., None] + 0.06 * fractal(rng, size, line.size, 30, 2)[..., None]
        layers.append((_masked(dune, _below(line, size)), depth))
    return layers


def _snow(rng: np.random.Generator, size: int) -> list[Layer]:
    sky = _clouded(rng, _gradient(size, [(0, (90, 140, 205)), (0.6, (205, 222, 240)), (1, (205, 222, 240))]), 0.5)
    layers: list[Layer] = [(_opaque(sky), 0.05)]
    for level, depth, dark in ((0.36, 0.2, 0.9), (0.46, 0.4, 0.7)):
        line = _ridge(rng, size, level, 0.42, 6, 4)
        rock = np.full((size, line.size, 3), (105, 115, 140), np.float32) * dark
        ridges = fractal(rng, size, line.size, 8, 5)[..., None]
        rock *= 1 + 0.5 * ridges
        heights = 0.14 * size - (np.arange(size)[:, None] - line[None])
        cap = np.clip(heights / (0.03 * size) + 5 * ridges[..., 0], 0, 1)
        rock += (245 - rock) * cap[..., None]
        layers.append((_masked(rock, _below(line, size)), depth))
    layers.append(_ground(rng, size, 0.6, (238, 243, 250), (205, 218, 235), 0.12, 7))
    return layers


def _underwater(rng: np.random.Generator, size: int) -> list[Layer]:
    water = _gradient(size, [(0, (90, 190, 220)), (0.5, (25, 105, 165)), (1, (8, 45, 95))])
    width = water.shape[1]
    rays = cv2.resize(rng.random((1, 24), np.float32), (width, size), interpolation=cv2.INTER_CUBIC)
    shear = np.float32([[1, -0.35, 0.18 * size], [0, 1, 0]])
    slanted = cv2.warpAffine(rays, shear, (width, size), borderMode=cv2.BORDER_WRAP)
    water += 60 * (np.clip(slanted - 0.45, 0, 1) * np.linspace(1, 0, size)[:, None].astype(np.float32))[..., None]
    bubbles = np.zeros((size, width, 4), np.uint8)
    for _ in range(40):
        centre = (int(rng.random() * width), int(rng.random() * size))
        radius = int((0.004 + 0.012 * rng.random()) * size) + 1
        cv2.circle(bubbles, centre, radius, (170, 220, 240, 200), 1, cv2.LINE_AA)
    bed, depth = _ground(rng, size, 0.86, (120, 125, 100), (60, 95, 110), 0.5, 20)
    for _ in range(14):
        x, tall = int(rng.random() * width), (0.06 + 0.14 * rng.random()) * size
        points = [(int(x + 0.015 * size * np.sin(k)), int(0.97 * size - tall * k / 6)) for k in range(7)]
        cv2.polylines(bed, [np.array(points, np.int32)], False, (30, 110, 80, 255), max(size // 70, 2), cv2.LINE_AA)
    return [(_opaque(water), 0.2), (bubbles, 0.6), (bed, depth)]


def _space(rng: np.random.Generator, size: int) -> list[Layer]:
    width = int(WIDTH * size)
    sky = np.full((size, width, 3), (8, 8, 22), np.float32)
    for colour in ((120, 40, 130), (30, 70, 140)):
        cloud = np.clip(fractal(rng, size, width, 2.5, 5) * 1.5, 0, 1)[..., None]
        sky += cloud * np.array(colour, np.float32) * 0.7
    stars = np.zeros((size, width, 4), np.uint8)
    for _ in range(240):
        glow = int(120 + 135 * rng.random())
        at = (int(rng.random() * width), int(rng.random() * size))
        cv2.circle(stars, at, int(rng.random() * 1.6 * size / 256), (glow, glow, glow, glow), -1, cv2.LINE_AA)
    _glow(sky, 0.15 + 0.7 * rng.random(), 0.18, 0.1, (190, 150, 110), halo=1.3)  # a planet
    return [(_opaque(sky), 0.1), (stars, 0.3)]


def _sunset(rng: np.random.Generator, size: int) -> list[Layer]:
    stops = [(0, (70, 50, 110)), (0.4, (210, 95, 95)), (0.7, (250, 165, 85)), (1, (255, 215, 140))]
    sky = _gradient(size, stops)
    _glow(sky, 0.3 + 0.4 * rng.random(), 0.78, 0.1, (255, 240, 190))
    streaks = cv2.resize(fractal(rng, size, int(WIDTH * size) // 5, 5, 4), (int(WIDTH * size), size))
    cover = np.clip(streaks * 2 - 0.15, 0, 0.8)[..., None]
    sky += (np.array((120, 60, 100), np.float32) - sky) * cover
    hills = np.full_like(sky, (45, 28, 52))
    return [(_opaque(sky), 0.1), (_masked(hills, _below(_ridge(rng, size, 0.93, 0.08, 4, 3), size)), 0.6)]


def _city(rng: np.random.Generator, size: int) -> list[Layer]:
    sky = _gradient(size, [(0, (14, 16, 42)), (0.6, (52, 46, 84)), (1, (52, 46, 84))])
    width = int(WIDTH * size)
    layers: list[Layer] = [(_opaque(sky), 0.05)]
    for base, depth, shade in ((0.3, 0.3, (34, 36, 66)), (0.42, 0.6, (50, 50, 78))):
        towers = np.zeros((size, width, 4), np.uint8)
        x = 0
        while x < width:
            wide, top = int((0.07 + 0.09 * rng.random()) * size), int((base - 0.2 * rng.random()) * size)
            cv2.rectangle(towers, (x, top), (x + wide - 2, size), (*shade, 255), -1)
            step = max(int(0.024 * size), 4)
            for wy in range(top + step, int(0.66 * size), step):
                for wx in range(x + step // 2, x + wide - step, step):
                    if rng.random() < 0.45:
                        lit = (250, 215, 120, 255) if rng.random() < 0.8 else (150, 200, 240, 255)
                        cv2.rectangle(towers, (wx, wy), (wx + step // 2, wy + step // 2), lit, -1)
            x += wide
        layers.append((towers, depth))
    road, depth = _ground(rng, size, 0.66, (82, 82, 92), (60, 60, 72), 0.25, 30)
    road[int(0.66 * size) : int(0.7 * size), :, :3] = (120, 118, 122)
    for x in range(0, width, int(0.2 * size)):
        cv2.rectangle(road, (x, int(0.84 * size)), (x + int(0.1 * size), int(0.855 * size)), (225, 215, 150, 255), -1)
    layers.append((road, depth))
    return layers


def _bricks(rng: np.random.Generator, size: int) -> list[Layer]:
    width = int(WIDTH * size)
    wall = np.full((size, width, 3), (188, 178, 166), np.float32)
    high, wide = max(int(0.05 * size), 6), max(int(0.12 * size), 12)
    for row, y in enumerate(range(0, int(0.72 * size), high)):
        for x in range(-wide // 2 * (row % 2), width, wide):
            colour = np.array((168, 72, 52)) * (0.78 + 0.4 * rng.random())
            cv2.rectangle(wall, (x + 1, y + 1), (x + wide - 2, y + high - 2), tuple(float(c) for c in colour), -1)
    wall *= 1 + 0.22 * fractal(rng, size, width, 12, 5)[..., None]
    return [(_opaque(wall), 0.8), _ground(rng, size, 0.72, (150, 148, 142), (115, 113, 110), 0.25, 16)]


def _room(rng: np.random.Generator, size: int) -> list[Layer]:
    width = int(WIDTH * size)
    wall = _gradient(size, [(0, (205, 215, 200)), (0.7, (180, 192, 178)), (1, (180, 192, 178))])
    left = int((0.1 + 0.5 * rng.random()) * width)
    right, top, low = left + int(0.36 * size), int(0.08 * size), int(0.42 * size)
    wall[top:low, left:right] = np.linspace((140, 190, 240), (215, 232, 245), low - top)[:, None]
    for corner in ((right, low), ((left + right) // 2, low), (right, (top + low) // 2)):
        cv2.rectangle(wall, (left, top), corner, (250.0, 250.0, 246.0), max(size // 50, 3))
    wall[int(0.6 * size) : int(0.64 * size)] = (240, 238, 230)
    floor = np.full((size, width, 3), (150, 100, 60), np.float32)
    plank = max(int(0.055 * size), 6)
    grain = cv2.resize(fractal(rng, size, width // 8, 40, 3), (width, size))[..., None]
    for y in range(int(0.64 * size), size, plank):
        floor[y : y + plank] *= 0.85 + 0.3 * rng.random()
        floor[y : y + max(size // 200, 1)] *= 0.6
        for x in range(int(rng.random() * 0.4 * size), width, int(0.5 * size)):
            floor[y : y + plank, x : x + max(size // 200, 1)] *= 0.6
    floor *= 1 + 0.28 * grain
    return [(_opaque(wall), 0.7), (_masked(floor, _below(np.full(width, 0.64 * size), size)), 1.0)]


def _studio(rng: np.random.Generator, size: int) -> list[Layer]:
    grey = 165 + 40 * rng.random()
    stops = ((0, 0.8), (0.62, 1.0), (0.7, 0.9), (1, 1.12))
    backdrop = _gradient(size, [(height, (grey * share,) * 3) for height, share in stops])
    _glow(backdrop, 0.5, 0.4, 0.02, (grey * 1.2,) * 3, halo=22, disc=False)
    return [(_opaque(backdrop), 0.2)]


def _checker(rng: np.random.Generator, size: int) -> list[Layer]:
    width = int(WIDTH * size)
    wall = _gradient(size, [(0, (120, 150, 165)), (0.55, (200, 215, 220)), (1, (200, 215, 220))])
    rows = np.arange(size, dtype=np.float32)[:, None]
    depth = 1 / np.maximum((rows / size - 0.5), 0.02)
    columns = (np.arange(width, dtype=np.float32)[None] - width / 2) / size
    phase = rng.random()
    even = (np.floor(columns * depth * 1.1 + phase) + np.floor(depth * 1.6)) % 2
    floor = np.where(even[..., None] > 0, 225.0, 45.0) * np.ones((1, 1, 3), np.float32)
    floor *= np.clip(1.25 - 0.12 * depth, 0.3, 1)[..., None]
    return [(_opaque(wall), 0.1), (_masked(floor, _below(np.full(width, 0.56 * size), size)), 0.3)]


def _pastel(rng: np.random.Generator, size: int) -> list[Layer]:
    colours = np.array([(255, 205, 220), (205, 225, 255), (215, 245, 220), (255, 240, 205)], np.float32)
    corners = colours[rng.permutation(4)].reshape(2, 2, 3)
    image = cv2.resize(corners, (int(WIDTH * size), size), interpolation=cv2.INTER_LINEAR)
    return [(_opaque(image), 0.3)]


def _void(rng: np.random.Generator, size: int) -> list[Layer]:
    width = int(WIDTH * size)
    image = np.full((size, width, 3), (10, 9, 12), np.float32)
    _glow(image, 0.5, 0.5, 0.02, (58, 52, 62), halo=16, disc=False)
    dust = np.zeros((size, width, 4), np.uint8)
    for _ in range(50):
        at = (int(rng.random() * width), int(rng.random() * size))
        cv2.circle(dust, at, max(size // 256, 1), (70, 66, 60, 90), -1, cv2.LINE_AA)
    return [(_opaque(image), 0.1), (dust, 0.6)]


def _ink(rng: np.random.Generator, size: int) -> list[Layer]:
    width = int(WIDTH * size)
    ys, xs = np.mgrid[0:size, 0:width].astype(np.float32)
    bend = 0.35 * size
    texture = fractal(rng, size, width, 3, 5)
    swirl = [fractal(rng, size, width, 2.5, 3) * bend for _ in range(2)]
    texture = cv2.remap(texture, xs + swirl[0], ys + swirl[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    level = np.clip(texture * 1.3 + 0.5, 0, 1)[..., None]
    image = np.array((6, 52, 62), np.float32) * (1 - level) + np.array((150, 232, 222), np.float32) * level
    return [(_opaque(image), 0.4)]


PAINTERS: dict[str, Callable[[np.random.Generator, int], list[Layer]]] = {
    painter.__name__.removeprefix("_"): painter
    for painter in (
        _beach, _meadow, _forest, _desert, _snow, _underwater, _space, _sunset,
        _city, _bricks, _room, _studio, _checker, _pastel, _void, _ink,
    )
}  # fmt: skip


def compose(layers: list[Layer], offsets: np.ndarray, size: int) -> np.ndarray:
    """The frames (T, size, size, 3), uint8, of a camera at `offsets` (T,), in pixels from the centre."""
    centre = (layers[0][0].shape[1] - size) // 2
    frames = np.empty((len(offsets), size, size, 3), np.uint8)
    inverse = [255 - cv2.cvtColor(image[..., 3], cv2.COLOR_GRAY2RGB) for image, _ in layers]
    colour = [cv2.cvtColor(image, cv2.COLOR_RGBA2RGB) for image, _ in layers]
    for t, offset in enumerate(offsets):
        for index, (_, depth) in enumerate(layers):
            left = int(np.clip(centre + round(offset * depth), 0, 2 * centre))
            window = np.s_[:, left : left + size]
            if index == 0:
                frames[t] = colour[0][window]
            else:
                kept = cv2.multiply(frames[t], inverse[index][window], scale=1 / 255)
                cv2.add(kept, colour[index][window], dst=frames[t])
    return frames
