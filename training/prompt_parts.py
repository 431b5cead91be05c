"""Which part of a synthetic prompt each of its words belongs to: subject, colour, background, count or motion.

The parts are named as the failures of `dataset_scripts.synthetic_t2v` that get them wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

PARTS_OF_PROMPT = ("wrong_subject", "wrong_colour", "wrong_background", "wrong_count", "wrong_motion")
NOTHING = "nothing_of_prompt"
COLOURS = "red orange yellow green blue purple pink white black"
COUNTS = "one single two pair three five group"
VERBS = (
    "walking running jumping hopping standing driving moving flying rising sinking coming swimming spinning rotating "
    "bouncing falling sliding growing expanding drifting floating left right up down upwards downwards larger still "
    "around"
)
# Where a prompt speaks of the background: from the preposition to the place's last word.
PLACES = re.compile(
    r"\b(on|in|by|against|among|over|under|deep under|floating in|in front of)( \w+-?\w*){0,4}? "
    r"(beach( by the sea)?|sea|meadow|forest|desert( dunes)?|mountains|water|space among the stars|outer space|"
    r"sunset( sky)?|city at night|street at night|wall|room with a wooden floor|floor of a room|studio|backdrop|"
    r"checkered floor|gradient|void|ink)\b",
    re.IGNORECASE,
)
FRAMING = "video short clip showing"  # words of the sentence, not of the scene


def part_of_words(prompt: str, words: Iterable[tuple[int, int]]) -> list[str | None]:
    """The failure that each word (start, end) of a synthetic prompt would be wrong by; None for framing and grammar.

    Derived from the text: places first (a pastel place's "green meadow" is no colour), then counts, colours and
    motions by their vocabulary; what is left of the content words is the subject.
    """
    place = PLACES.search(prompt)
    parts: list[str | None] = []
    for start, end in words:
        word = prompt[start:end].lower()
        if place and place.start() <= start < place.end():
            parts.append("wrong_background")
        elif word in FRAMING.split():
            parts.append(None)
        else:
            vocabularies = {"wrong_count": COUNTS, "wrong_colour": COLOURS, "wrong_motion": VERBS}
            known = (part for part, vocabulary in vocabularies.items() if word in vocabulary.split())
            parts.append(next(known, "wrong_subject"))
    return parts
