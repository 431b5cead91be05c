"""The parts of a prompt of the synthetic benchmark, such as its subject, and the failures that get a part wrong.

`dataset_scripts.synthetic_t2v` writes the column `prompt_parts`: a JSON list of [start, end, part].
"""

import json

# failure -> the part of the prompt that a clip with this failure gets wrong
WRONG = {f"wrong_{part}": part for part in ("subject", "colour", "background", "count", "motion")}
NOTHING = "nothing_of_prompt"  # failure of a clip that shows nothing of its prompt

Spans = list[tuple[int, int, str]]


def read_parts(text: str) -> Spans:
    """Read the (start, end, part) entries of a prompt."""
    return [tuple(entry) for entry in json.loads(text)]


def part_of(spans: Spans, start: int, end: int) -> str | None:
    """The part to which the word at `start:end` belongs; None for a word that describes nothing of the scene."""
    return next((part for first, last, part in spans if first <= start and end <= last), None)
