"""The summary of probes in reports and cards."""

from typing import Any

# The figure that decides the verdict, by group, and what it is.
DECIDES = {
    "degradations": ("falls_strong", "falls for {:.0%} of the clips"),
    "tricks": ("lift_quality", "lifts quality by {:+.2f} deviations"),
    "swaps": ("wins", "wins against {:.0%} of the others"),
    "steadiness": ("mean_change", "moves quality by {:.2g} deviations"),
}


def probe_rows(probes: dict[str, Any]) -> list[list[str]]:
    """Title, deciding figure and verdict of every probe.

    Args:
        probes: content of probes.json.
    """
    rows = []
    for row in probes["rows"]:
        name, text = DECIDES[row["group"]]
        rows.append([row["title"], text.format(row["figures"][name]), row["verdict"]])
    return rows
