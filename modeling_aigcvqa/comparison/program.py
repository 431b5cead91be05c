"""Write a comparison to a folder."""

import json
from pathlib import Path
from typing import Any

from ..common.cells import encodable
from ..common.files import write_text
from .compare import Comparison
from .files import leaderboard_csv, pairs_csv, to_json
from .page import page_html

PAGE, DATA, LEADERBOARD, PAIRS = "comparison.html", "comparison.json", "leaderboard.csv", "pairs.csv"


def write_comparison(
    comparison: Comparison, folder: Path, model: str | None = None, note: str | None = None
) -> dict[str, Any]:
    """Write the page, the data as JSON and two CSV files; returns the data.

    Args:
        model, note: name of the model that scored, and the note on its weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = to_json(comparison, model, note)
    write_text(folder / DATA, encodable(json.dumps(content, indent=1, ensure_ascii=False)))
    write_text(folder / LEADERBOARD, leaderboard_csv(comparison))
    write_text(folder / PAIRS, pairs_csv(comparison))
    write_text(folder / PAGE, encodable(page_html(comparison, model, note)))
    return content
