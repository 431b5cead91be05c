"""The grammar of the synthetic benchmark: the scenes, and the English prompts that describe them.

A `Scene` is a subject with its count, colour, motion and background. `make_prompts` draws every scene at most once, so
no two prompts ask for the same scene in different words.
"""

import string
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

CATEGORIES = ("nature", "human", "artificial", "animal", "object", "abstract")

COLOURS = {
    "red": (214, 40, 40),
    "orange": (245, 130, 20),
    "yellow": (250, 215, 40),
    "green": (45, 165, 65),
    "blue": (35, 95, 225),
    "purple": (130, 50, 180),
    "pink": (250, 125, 185),
    "white": (243, 243, 240),
    "black": (34, 34, 40),
}

COUNTS = (1, 2, 3, 5)
COUNT_PROBABILITIES = (0.4, 0.22, 0.2, 0.18)

MOTIONS = ("left", "right", "rise", "fall", "spin", "bounce", "grow", "still")


@dataclass(frozen=True)
class Background:
    """The words for a background, the subject colours that cannot be seen on it, and whether it has a ground."""

    phrases: tuple[str, ...]
    hides: tuple[str, ...]
    has_ground: bool


BACKGROUNDS = {
    "beach": Background(("on a sandy beach", "on a beach by the sea"), ("yellow", "white", "orange"), True),
    "meadow": Background(("in a green meadow", "on a grassy meadow"), ("green",), True),
    "forest": Background(("in a dark pine forest", "in a pine forest"), ("green", "black"), True),
    "desert": Background(("in a sandy desert", "among desert dunes"), ("orange", "yellow"), True),
    "snow": Background(("in front of snowy mountains", "on snow below the mountains"), ("white",), True),
    "underwater": Background(("under water", "deep under the sea"), ("blue", "green"), False),
    "space": Background(("in outer space", "in space among the stars"), ("black", "purple"), False),
    "sunset": Background(("against a sunset sky", "in a sky at sunset"), ("orange", "red", "pink", "yellow"), False),
    "city": Background(("on a city street at night", "in a city at night"), ("black", "blue"), True),
    "bricks": Background(("in front of a brick wall", "by a red brick wall"), ("red", "orange"), True),
    "room": Background(("in a room with a wooden floor", "on the wooden floor of a room"), ("orange", "yellow"), True),
    "studio": Background(("in a plain grey studio", "on a plain grey backdrop"), (), True),
    "checker": Background(("on a checkered floor", "on a black and white checkered floor"), ("black", "white"), True),
    "pastel": Background(("over a smooth pastel gradient", "on a soft pastel gradient"), ("pink", "white"), False),
    "void": Background(("in a dark void", "floating in a black void"), ("black", "blue", "purple"), False),
    "ink": Background(("over swirling teal ink", "in swirling clouds of teal ink"), ("blue", "green"), False),
}

GROUND = tuple(name for name, background in BACKGROUNDS.items() if background.has_ground)
AIR = ("sunset", "beach", "meadow", "desert", "snow", "city", "forest", "pastel", "space")
FLOATING = ("space", "pastel", "void", "ink", "underwater", "sunset", "studio", "checker")


@dataclass(frozen=True)
class Subject:
    """A thing that can be drawn. `{c}` in its words stands for the colour, and `verbs` has the words of each motion."""

    category: str
    singular: str
    plural: str
    verbs: dict[str, tuple[str, ...]]
    backgrounds: tuple[str, ...]
    grounded: bool


_WALK = {
    "left": ("walking to the left", "running to the left"),
    "right": ("walking to the right", "running to the right"),
    "bounce": ("jumping up and down", "hopping up and down"),
    "still": ("standing still",),
}
_DRIVE = {
    "left": ("driving to the left", "moving to the left"),
    "right": ("driving to the right", "moving to the right"),
    "still": ("standing still",),
}
_FLY = {
    "left": ("flying to the left",),
    "right": ("flying to the right",),
    "rise": ("flying upwards", "rising upwards"),
    "fall": ("sinking downwards", "coming down"),
}
_SWIM = {
    "left": ("swimming to the left",),
    "right": ("swimming to the right",),
    "rise": ("swimming upwards",),
    "fall": ("sinking downwards",),
}
_THING = {
    "spin": ("spinning around", "rotating"),
    "bounce": ("bouncing up and down",),
    "fall": ("falling down",),
    "left": ("sliding to the left",),
    "right": ("sliding to the right",),
    "still": ("standing still",),
}
_PLANT = {"grow": ("growing larger",), "still": ("standing still",), "bounce": ("bouncing up and down",)}
_DRIFT = {
    "left": ("drifting to the left", "floating to the left"),
    "right": ("drifting to the right", "floating to the right"),
    "rise": ("rising upwards",),
    "fall": ("falling down",),
}
_PATTERN = _DRIFT | {"spin": ("spinning around", "rotating"), "grow": ("growing larger", "expanding")}

_FISH_PLACES = ("underwater", "ink", "void", "pastel", "space", "sunset")


def _coloured(category: str, noun: str, plural: str, verbs: dict, places: tuple[str, ...], grounded: bool) -> Subject:
    """A subject that has the colour itself: 'red dog', 'red dogs'."""
    return Subject(category, "{c} " + noun, "{c} " + plural, verbs, places, grounded)


def _dressed(noun: str, plural: str, dress: str, dresses: str) -> Subject:
    """A person whose clothes have the colour: 'man in a red jacket', 'men in red jackets'."""
    return Subject("human", f"{noun} in {{a}} {{c}} {dress}", f"{plural} in {{c}} {dresses}", _WALK, GROUND, True)


SUBJECTS = {
    "tree": _coloured("nature", "tree", "trees", _PLANT, GROUND, True),
    "flower": _coloured("nature", "flower", "flowers", _PLANT, GROUND, True),
    "mushroom": _coloured("nature", "mushroom", "mushrooms", _PLANT, GROUND, True),
    "cactus": _coloured("nature", "cactus", "cactuses", _PLANT, GROUND, True),
    "cloud": _coloured("nature", "cloud", "clouds", _DRIFT, AIR, False),
    "leaf": _coloured("nature", "leaf", "leaves", _DRIFT | {"spin": _THING["spin"]}, AIR, False),
    "crystal": _coloured("nature", "crystal", "crystals", _THING, GROUND, True),
    "man": _dressed("man", "men", "jacket", "jackets"),
    "woman": _dressed("woman", "women", "dress", "dresses"),
    "child": _dressed("child", "children", "hoodie", "hoodies"),
    "dancer": _dressed("dancer", "dancers", "tutu", "tutus"),
    "astronaut": _dressed("astronaut", "astronauts", "suit", "suits"),
    "wizard": _dressed("wizard", "wizards", "robe", "robes"),
    "car": _coloured("artificial", "car", "cars", _DRIVE, GROUND, True),
    "bus": _coloured("artificial", "bus", "buses", _DRIVE, GROUND, True),
    "robot": _coloured("artificial", "robot", "robots", _WALK, GROUND, True),
    "sailboat": _coloured("artificial", "sailboat", "sailboats", _DRIFT, ("beach", "snow", "pastel", "sunset"), False),
    "airplane": _coloured("artificial", "airplane", "airplanes", _FLY, AIR, False),
    "rocket": _coloured("artificial", "rocket", "rockets", _FLY, AIR, False),
    "balloon": _coloured("artificial", "hot-air balloon", "hot-air balloons", _DRIFT, AIR, False),
    "dog": _coloured("animal", "dog", "dogs", _WALK, GROUND, True),
    "cat": _coloured("animal", "cat", "cats", _WALK, GROUND, True),
    "horse": _coloured("animal", "horse", "horses", _WALK, GROUND, True),
    "rabbit": _coloured("animal", "rabbit", "rabbits", _WALK, GROUND, True),
    "elephant": _coloured("animal", "elephant", "elephants", _WALK, GROUND, True),
    "bird": _coloured("animal", "bird", "birds", _FLY, AIR, False),
    "butterfly": _coloured("animal", "butterfly", "butterflies", _FLY, AIR, False),
    "fish": _coloured("animal", "fish", "fish", _SWIM, _FISH_PLACES, False),
    "turtle": _coloured("animal", "turtle", "turtles", _WALK, GROUND, True),
    "ball": _coloured("object", "ball", "balls", _THING, GROUND, True),
    "mug": _coloured("object", "mug", "mugs", _THING, GROUND, True),
    "umbrella": _coloured("object", "umbrella", "umbrellas", _THING, GROUND, True),
    "lamp": _coloured("object", "lamp", "lamps", _THING, GROUND, True),
    "gift": _coloured("object", "gift box", "gift boxes", _THING, GROUND, True),
    "guitar": _coloured("object", "guitar", "guitars", _THING, GROUND, True),
    "chair": _coloured("object", "chair", "chairs", _THING, GROUND, True),
    "key": _coloured("object", "key", "keys", _THING, GROUND, True),
    "spiral": _coloured("abstract", "spiral", "spirals", _PATTERN, FLOATING, False),
    "star": _coloured("abstract", "star", "stars", _PATTERN, FLOATING, False),
    "ring": _coloured("abstract", "striped ring", "striped rings", _PATTERN, FLOATING, False),
    "cube": _coloured("abstract", "cube", "cubes", _PATTERN, FLOATING, False),
    "triangle": _coloured("abstract", "triangle", "triangles", _PATTERN, FLOATING, False),
    "mandala": _coloured("abstract", "mandala", "mandalas", _PATTERN, FLOATING, False),
    "wave": _coloured("abstract", "wavy ribbon", "wavy ribbons", _PATTERN, FLOATING, False),
}

_COUNT_WORDS = {1: ("{a}", "one", "a single"), 2: ("two", "a pair of"), 3: ("three", "a group of three")}
_COUNT_WORDS |= {5: ("five", "a group of five")}
_TEMPLATES = (
    "{who} {verb} {where}",
    "{where}, {who} {be} {verb}",
    "a video of {who} {verb} {where}",
    "{who} {be} {verb} {where}",
    "a short clip showing {who} {verb} {where}",
    "{where}, {who} {verb}",
)


@dataclass(frozen=True)
class Scene:
    """The scene that a prompt asks for, or that a clip shows."""

    category: str
    subject: str
    count: int
    colour: str
    motion: str
    background: str


def subjects_of(category: str) -> list[str]:
    """The names of the subjects of one category."""
    return [name for name, subject in SUBJECTS.items() if subject.category == category]


def colours_on(background: str) -> list[str]:
    """The colours that can be seen on the background."""
    return [colour for colour in COLOURS if colour not in BACKGROUNDS[background].hides]


def backgrounds_for(subject: str, colour: str | None = None) -> list[str]:
    """The backgrounds that suit the subject and on which the colour, if one is given, can be seen."""
    places = SUBJECTS[subject].backgrounds
    return [name for name in places if colour is None or colour not in BACKGROUNDS[name].hides]


def sample_scene(rng: np.random.Generator, category: str | None = None) -> Scene:
    """Draw a scene. All choices are uniform except the count."""
    category = category or str(rng.choice(CATEGORIES))
    subject = str(rng.choice(subjects_of(category)))
    background = str(rng.choice(backgrounds_for(subject)))
    colour = str(rng.choice(colours_on(background)))
    motion = str(rng.choice(list(SUBJECTS[subject].verbs)))
    count = int(rng.choice(COUNTS, p=COUNT_PROBABILITIES))
    return Scene(category, subject, count, colour, motion, background)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


@dataclass(frozen=True)
class Prompt:
    """A scene described in English.

    Args:
        scene: the scene that the prompt asks for.
        text: the prompt.
        parts: (start, end, part) of each piece of the text that describes a part of the scene; the part is "subject",
            "colour", "background", "count" or "motion".
    """

    scene: Scene
    text: str
    parts: list[tuple[int, int, str]]


def write_prompt(scene: Scene, rng: np.random.Generator) -> Prompt:
    """Describe a scene in English. The wording depends on `rng`, the content does not."""
    subject = SUBJECTS[scene.subject]
    noun = (subject.singular if scene.count == 1 else subject.plural).replace("{c}", scene.colour)
    noun = noun.replace("{a}", _article(scene.colour))
    quantity = str(rng.choice(_COUNT_WORDS[scene.count])).replace("{a}", _article(noun))
    template = str(rng.choice(_TEMPLATES))
    before, _, after = noun.partition(scene.colour)
    pieces = {
        "who": [(quantity, "count"), (" ", None), (before, "subject"), (scene.colour, "colour"), (after, "subject")],
        "verb": [(str(rng.choice(subject.verbs[scene.motion])), "motion")],
        "where": [(str(rng.choice(BACKGROUNDS[scene.background].phrases)), "background")],
        "be": [("is" if scene.count == 1 else "are", None)],
    }
    text, parts = "", []
    for literal, field, _, _ in string.Formatter().parse(template):
        for words, part in [(literal, None), *pieces.get(field, [])]:
            if part and words.strip():
                parts.append((len(text), len(text) + len(words), part))
            text += words
    return Prompt(scene, text[0].upper() + text[1:] + ("." if rng.random() < 0.5 else ""), parts)


def make_prompts(num_prompts: int, seed: int, unlike: Iterable[Scene] = ()) -> list[Prompt]:
    """The first `num_prompts` prompts of a seed. A longer list starts with the prompts of a shorter one.

    The categories take turns, so each category has the same share.

    Args:
        unlike: scenes that no prompt may ask for.
    """
    seen = set(unlike)
    prompts = []
    for index in range(num_prompts):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, index)))
        category = CATEGORIES[index % len(CATEGORIES)]
        for _ in range(1000):
            scene = sample_scene(rng, category)
            if scene not in seen:
                break
        else:
            raise ValueError(
                f"num_prompts={num_prompts} exhausts the grammar at prompt {index}; ask for fewer prompts."
            )
        seen.add(scene)
        prompts.append(write_prompt(scene, rng))
    return prompts
