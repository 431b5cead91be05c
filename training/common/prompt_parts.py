"""What the words of a prompt of the synthetic benchmark say, and which failures get them wrong.

The column `prompt_parts` of `dataset_scripts.synthetic_t2v` holds it: a JSON list of [start, end, part].
"""

import json

# The failure that gets a part of the prompt wrong -> the part.
WRONG = {f"wrong_{part}": part for part in ("subject", "colour", "background", "count", "motion")}
NOTHING = "nothing_of_prompt"  # the failure of a clip that shows something else altogether

Spans = list[tuple[int, int, str]]


def read_parts(text: str) -> Spans:
    """(start, end, part) of each stretch of a prompt."""
    return [tuple(entry) for entry in json.loads(text)]


def part_of(spans: Spans, start: int, end: int) -> str | None:
    """The part that the word at `start:end` belongs to; None for the words around the scene."""
    return next((part for first, last, part in spans if first <= start and end <= last), None)
