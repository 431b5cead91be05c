"""The failures of the simulated generators: how often they occur, their severity, their effect on frames and scores.

The `Plan` of a clip holds the scene that the clip shows, the severities (0..1) of its technical and aesthetic failures,
and the costs of its mistakes about the prompt. The three latent qualities depend on the plan alone:

    technical = product over technical failures of (1 - cost * severity)
    aesthetic = product over aesthetic failures of (1 - cost * severity)
    alignment = product over alignment failures of (1 - cost)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from .synthetic_prompts import (
    CATEGORIES,
    COUNT_PROBABILITIES,
    COUNTS,
    SUBJECTS,
    Scene,
    backgrounds_for,
    colours_on,
    sample_scene,
    subjects_of,
)
from .synthetic_scenes import NUM_FRAMES, Assets, Framing, Shot, draw_scene, grade, sample_shot, shot_table

TECHNICAL_COSTS = {
    "noise": 0.85,
    "blur": 0.9,
    "blocking": 0.85,
    "banding": 0.65,
    "flicker": 0.7,
    "frozen_frames": 0.65,
    "dropped_frames": 0.6,
    "ghosting": 0.7,
    "warping": 0.85,
    "texture_crawl": 0.8,
}
NEEDS_MOTION = ("frozen_frames", "dropped_frames", "ghosting")
AESTHETIC_COSTS = {
    "exposure": 0.85,
    "dull_colour": 0.75,
    "clashing_colour": 0.75,
    "cropped": 0.75,
    "unbalanced": 0.7,
    "clutter": 0.85,
}
ALIGNMENT_COSTS = {
    "nothing_of_prompt": 0.95,
    "wrong_subject": 0.6,
    "wrong_colour": 0.5,
    "wrong_background": 0.5,
    "wrong_count": 0.3,
    "wrong_motion": 0.25,
}
# Relative frequencies of the mistakes, before the habits of a generator.
ALIGNMENT_SHARES = {
    "nothing_of_prompt": 1.0,
    "wrong_subject": 1.2,
    "wrong_colour": 1.2,
    "wrong_background": 1.2,
    "wrong_count": 0.7,
    "wrong_motion": 0.6,
}

CLEAN_CRF = 18
_OPPOSITE = {"left": "right", "right": "left", "rise": "fall", "fall": "rise"}
_CLOSE_COLOURS = ({"red", "orange"}, {"orange", "yellow"}, {"blue", "purple"}, {"pink", "red"}, {"purple", "pink"})


@dataclass(frozen=True)
class Generator:
    """A simulated text-to-video model: the rate of failures of each kind, their mean severity, and its bad habits."""

    name: str
    technical: float
    aesthetic: float
    alignment: float
    severity: float
    habits: tuple[str, ...]


# The rates are chosen so that one quality hardly predicts another: a sharp generator may ignore the prompt.
GENERATORS = (
    Generator("aurora", 0.25, 0.30, 0.30, 0.40, ("texture_crawl", "clutter", "wrong_count")),
    Generator("basalt", 0.30, 0.55, 0.75, 0.45, ("banding", "dull_colour", "wrong_motion")),
    Generator("cinder", 0.85, 0.35, 0.35, 0.55, ("noise", "flicker", "exposure", "wrong_colour")),
    Generator("delta", 0.50, 0.80, 0.45, 0.50, ("blur", "cropped", "clashing_colour", "wrong_background")),
    Generator("ember", 0.55, 0.30, 0.80, 0.50, ("warping", "unbalanced", "wrong_subject", "nothing_of_prompt")),
    Generator("fjord", 0.85, 0.60, 0.70, 0.55, ("blocking", "frozen_frames", "dull_colour", "wrong_count")),
    Generator("garnet", 0.40, 0.55, 0.40, 0.45, ("ghosting", "exposure", "wrong_motion")),
    Generator("harbor", 0.75, 0.80, 0.50, 0.60, ("dropped_frames", "blur", "clutter", "wrong_colour")),
    Generator("indigo", 0.60, 0.45, 0.60, 0.50, ("texture_crawl", "noise", "clashing_colour", "wrong_subject")),
    Generator("juniper", 0.75, 0.70, 0.85, 0.60, ("blocking", "warping", "unbalanced", "nothing_of_prompt")),
)


@dataclass(frozen=True)
class Plan:
    """The scene that a clip shows and its failures: severities or, for alignment, costs in 0..1, by failure name."""

    scene: Scene
    technical: dict[str, float]
    aesthetic: dict[str, float]
    alignment: dict[str, float]

    @property
    def failures(self) -> dict[str, float]:
        """All failures, with their severity or, for alignment failures, their cost."""
        return {**self.technical, **self.aesthetic, **self.alignment}

    def latents(self) -> dict[str, float]:
        """The three latent qualities in 0..1, by name."""
        technical = np.prod([1 - TECHNICAL_COSTS[name] * severity for name, severity in self.technical.items()])
        aesthetic = np.prod([1 - AESTHETIC_COSTS[name] * severity for name, severity in self.aesthetic.items()])
        alignment = np.prod([1 - cost for cost in self.alignment.values()])
        return {"technical": float(technical), "aesthetic": float(aesthetic), "alignment": float(alignment)}


# --- choice of the failures --------------------------------------------------------------------------------------


def _pick(names: list[str], rate: float, generator: Generator, rng: np.random.Generator) -> list[str]:
    """Zero, one or two of the names; a generator's habits are four times as likely as the others."""
    count = int(rng.random() < rate) + int(rng.random() < 0.45 * rate)
    weights = np.array([(4.0 if n in generator.habits else 1.0) * ALIGNMENT_SHARES.get(n, 1.0) for n in names])
    return [str(name) for name in rng.choice(names, size=count, replace=False, p=weights / weights.sum())]


def _severity(generator: Generator, rng: np.random.Generator) -> float:
    """A severity in 0.1..1, with a mean that increases with the generator's own severity."""
    return round(0.1 + 0.9 * float(rng.beta(2.4 * generator.severity + 0.4, 2.4 * (1 - generator.severity) + 0.4)), 4)


def _with_other(scene: Scene, field: str, options: list[str], rng: np.random.Generator) -> Scene | None:
    """The scene with another of the options in one field, or None if there is no other option."""
    rest = [option for option in options if option != getattr(scene, field)]
    return replace(scene, **{field: rest[int(rng.integers(len(rest)))]}) if rest else None


def _wrong_subject(scene: Scene, rng: np.random.Generator) -> Scene | None:
    category = scene.category if rng.random() < 0.7 else str(rng.choice(CATEGORIES))
    fits = [name for name in subjects_of(category) if scene.background in backgrounds_for(name, scene.colour)]
    changed = _with_other(scene, "subject", fits, rng)
    if changed is None:
        return None
    subject = SUBJECTS[changed.subject]
    motion = scene.motion if scene.motion in subject.verbs else str(rng.choice(list(subject.verbs)))
    return replace(changed, category=subject.category, motion=motion)


def _wrong_colour(scene: Scene, rng: np.random.Generator) -> Scene | None:
    far = [colour for colour in colours_on(scene.background) if {colour, scene.colour} not in _CLOSE_COLOURS]
    return _with_other(scene, "colour", far, rng)


def _wrong_background(scene: Scene, rng: np.random.Generator) -> Scene | None:
    return _with_other(scene, "background", backgrounds_for(scene.subject, scene.colour), rng)


def _wrong_count(scene: Scene, rng: np.random.Generator) -> Scene | None:
    shares = np.where(np.array(COUNTS) == scene.count, 0.0, COUNT_PROBABILITIES)
    return replace(scene, count=int(rng.choice(COUNTS, p=shares / shares.sum())))


def _wrong_motion(scene: Scene, rng: np.random.Generator) -> Scene | None:
    verbs = list(SUBJECTS[scene.subject].verbs)
    opposite = _OPPOSITE.get(scene.motion)
    if opposite in verbs and rng.random() < 0.6:
        return replace(scene, motion=opposite)
    return _with_other(scene, "motion", verbs, rng)


def _nothing(scene: Scene, rng: np.random.Generator) -> Scene | None:
    for _ in range(100):
        other = sample_scene(rng)
        if other.subject != scene.subject and other.colour != scene.colour and other.background != scene.background:
            return other
    return None


_MISTAKES: dict[str, Callable[[Scene, np.random.Generator], Scene | None]] = {
    "nothing_of_prompt": _nothing,
    "wrong_subject": _wrong_subject,
    "wrong_colour": _wrong_colour,
    "wrong_background": _wrong_background,
    "wrong_count": _wrong_count,
    "wrong_motion": _wrong_motion,
}


def _misread(scene: Scene, mistakes: list[str], rng: np.random.Generator) -> tuple[Scene, dict[str, float]]:
    """The scene that a generator shows instead, and the cost of each of its mistakes."""
    if "nothing_of_prompt" in mistakes:
        mistakes = ["nothing_of_prompt"]
    shown, costs = scene, {}
    for name in mistakes:
        changed = _MISTAKES[name](shown, rng)
        if changed is not None:
            shown = changed
            costs[name] = ALIGNMENT_COSTS[name]
    if "wrong_count" in costs:
        steps = abs(COUNTS.index(shown.count) - COUNTS.index(scene.count))
        costs["wrong_count"] = round(ALIGNMENT_COSTS["wrong_count"] * (0.7 + 0.15 * steps), 4)
    return shown, costs


def make_plan(scene: Scene, generator: Generator, rng: np.random.Generator) -> Plan:
    """Draw the plan of a generator's clip for a scene."""
    shown, alignment = _misread(scene, _pick(list(ALIGNMENT_COSTS), generator.alignment, generator, rng), rng)
    technical_names = [name for name in TECHNICAL_COSTS if shown.motion != "still" or name not in NEEDS_MOTION]
    technical = {n: _severity(generator, rng) for n in _pick(technical_names, generator.technical, generator, rng)}
    aesthetic = {
        n: _severity(generator, rng) for n in _pick(list(AESTHETIC_COSTS), generator.aesthetic, generator, rng)
    }
    if {"cropped", "unbalanced"} <= aesthetic.keys():
        del aesthetic["unbalanced"]  # a subject cannot be too near and too far at once
    return Plan(shown, technical, aesthetic, alignment)


# --- effects on the frames ---------------------------------------------------------------------------------------


def _noise(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    size = frames.shape[1]
    bank = rng.standard_normal((size + 48, size + 48, 3), np.float32) * (8 + 40 * severity)
    bank = bank.astype(np.int16)
    out = np.empty_like(frames)
    for t, frame in enumerate(frames):
        y, x = rng.integers(0, 48, 2)
        grain = bank[y : y + size, x : x + size]
        out[t] = cv2.add(frame, grain, dtype=cv2.CV_8U)
    return out


def _blur(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    sigma = (0.8 + 3.0 * severity) * frames.shape[1] / 256
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])


def _banding(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    levels = 5.0 + 14.0 * (1 - severity) ** 1.5
    table = np.round(np.arange(256) / 255 * levels) / levels * 255
    return cv2.LUT(frames.reshape(-1, frames.shape[2], 3), table.clip(0, 255).astype(np.uint8)).reshape(frames.shape)


def _flicker(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    signs = np.where(np.arange(NUM_FRAMES) % 2, 1, -1) * np.where(rng.random(NUM_FRAMES) < 0.2, -1, 1)
    gains = 1 + signs * rng.uniform(0.6, 1.0, NUM_FRAMES) * (0.07 + 0.4 * severity)
    return np.stack([cv2.convertScaleAbs(frame, alpha=float(gain)) for frame, gain in zip(frames, gains, strict=True)])


def _frozen_frames(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    run = 4 + round(9 * severity)
    start = int(rng.integers(0, NUM_FRAMES - run + 1))
    order = np.arange(NUM_FRAMES)
    order[start : start + run] = start
    return frames[order]


def _dropped_frames(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    order = np.arange(NUM_FRAMES)
    for t in np.sort(rng.choice(np.arange(1, NUM_FRAMES), 3 + round(8 * severity), replace=False)):
        order[t] = order[t - 1]
    return frames[order]


def _ghosting(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    kept = 0.45 + 0.42 * severity
    trail = frames[0].astype(np.float32)
    out = np.empty_like(frames)
    for t, frame in enumerate(frames):
        cv2.accumulateWeighted(frame, trail, 1 - kept)
        out[t] = trail
    return out


def _flow(rng: np.random.Generator, size: int, cells: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """A random smooth displacement in x and in y, each (size, size), float32."""
    grid = rng.standard_normal((cells, cells, 2), np.float32) * reach
    field = cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC if cells < 16 else cv2.INTER_LINEAR)
    return field[..., 0], field[..., 1]


def _displace(frames: np.ndarray, cells: int, reach: float, mottle: float, rng: np.random.Generator) -> np.ndarray:
    """Distort every frame differently; `mottle` is the contrast of a texture that changes with every frame."""
    size = frames.shape[1]
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32)
    out = np.empty_like(frames)
    for t, frame in enumerate(frames):
        dx, dy = _flow(rng, size, cells, reach)
        out[t] = cv2.remap(frame, xs + dx, ys + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        if mottle:
            pattern = cv2.cvtColor(1 + dx * (mottle / reach), cv2.COLOR_GRAY2RGB)
            out[t] = cv2.multiply(out[t], pattern, dtype=cv2.CV_8U)
    return out


def _warping(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    return _displace(frames, 7, (1.5 + 7.5 * severity) * frames.shape[1] / 256, 0.0, rng)


def _texture_crawl(frames: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    return _displace(frames, 44, (0.4 + 2.1 * severity) * frames.shape[1] / 256, 0.02 + 0.08 * severity, rng)


_EFFECTS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "warping": _warping,
    "texture_crawl": _texture_crawl,
    "ghosting": _ghosting,
    "blur": _blur,
    "noise": _noise,
    "banding": _banding,
    "flicker": _flicker,
    "frozen_frames": _frozen_frames,
    "dropped_frames": _dropped_frames,
}


def crf_of(plan: Plan) -> int:
    """The constant rate factor of the encoder: 18, or 34 to 50 if the plan has the failure "blocking"."""
    severity = plan.technical.get("blocking")
    return CLEAN_CRF if severity is None else round(34 + 16 * severity)


def _framing(plan: Plan, rng: np.random.Generator) -> Framing:
    """The composition failures of a plan."""
    size, shift, tilt = 1.0, (0.0, 0.0), 0.0
    side = float(rng.choice([-1, 1]))
    if "cropped" in plan.aesthetic:
        severity = plan.aesthetic["cropped"]
        size, shift = 1 + 0.5 * severity, (side * (0.16 + 0.24 * severity), 0.1 * severity)
    if "unbalanced" in plan.aesthetic:
        severity = plan.aesthetic["unbalanced"]
        size, shift = 0.9 - 0.4 * severity, (side * (0.1 + 0.2 * severity), 0.0)
        tilt = float(rng.choice([-1, 1])) * (3 + 13 * severity)
    clutter, clash = plan.aesthetic.get("clutter", 0.0), plan.aesthetic.get("clashing_colour", 0.0)
    return Framing(size, shift, tilt, clutter, clash)


def _grading(plan: Plan, shot: Shot, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """The saturation and the look-up table of a clip: the look of the shot, then dull colours and exposure."""
    saturation, table = shot.saturation, shot_table(shot)
    if "dull_colour" in plan.aesthetic:
        severity = plan.aesthetic["dull_colour"]
        saturation *= 0.75 - 0.5 * severity
        contrast = 0.8 - 0.4 * severity
        table = 128 + (table - 128) * contrast
    if "exposure" in plan.aesthetic:
        severity = plan.aesthetic["exposure"]
        over = rng.random() < 0.5
        table = table * (1.25 + 1.5 * severity) + 30 * severity if over else table * (0.7 - 0.5 * severity)
    return saturation, table


def render(plan: Plan, assets: Assets, rng: np.random.Generator) -> np.ndarray:
    """The frames (16, size, size, 3), uint8, of a clip before encoding. The encoder adds the failure "blocking"."""
    shot = sample_shot(plan.scene, rng)
    frames = draw_scene(plan.scene, shot, _framing(plan, rng), assets, rng)
    frames = grade(frames, *_grading(plan, shot, rng))
    for name, effect in _EFFECTS.items():
        if name in plan.technical:
            frames = effect(frames, plan.technical[name], rng)
    return np.ascontiguousarray(frames)
