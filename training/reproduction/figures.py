"""Write tables with the paper's figures and ours, mean and standard deviation over the splits."""

import argparse
import shlex
from pathlib import Path

import numpy as np

from modeling_aigcvqa.common.files import read_json, write_text
from training.common.text import METRIC_TITLES, markdown_table

from .tables import TABLES, Table


def read_figures(table: Table, splits: list[Path], output: Path) -> dict[str, list[dict[str, float]]]:
    """The metrics of the quality score by row label, one dictionary per finished split."""
    figures: dict[str, list[dict[str, float]]] = {}
    for row in table.rows:
        files = (output / split.stem / "test" / row.evaluation / "metrics.json" for split in splits)
        results = (read_json(file) for file in files if file.exists())
        figures[row.label] = [
            {name: figure["value"] for name, figure in result["metrics"]["quality_score"].items()} for result in results
        ]
    return figures


def format_table(table: Table, figures: dict[str, list[dict[str, float]]]) -> str:
    """A table of the paper's figures and ours in Markdown."""
    others = [name for name in METRIC_TITLES if name not in table.metrics]
    header = ["", *(f"{METRIC_TITLES[name]} {who}" for name in table.metrics for who in ("paper", "ours"))]
    rows = []
    for row in table.rows:
        found = figures[row.label]
        cells = [cell for name in table.metrics for cell in (f"{row.paper[name]:.4f}", mean_text(found, name))]
        rows.append([row.label, *cells, *(mean_text(found, name) for name in others), str(len(found))])
    return f"## {table.title}\n\n" + markdown_table(
        [*header, *(METRIC_TITLES[name] for name in others), "splits"], rows
    )


def mean_text(figures: list[dict[str, float]], name: str) -> str:
    """The mean, with the standard deviation if there are several values; a dash if a value is undefined or missing."""
    values = [figure[name] for figure in figures]
    if not values or None in values:
        return "-"
    deviation = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{deviation}"


def write_report(arguments: argparse.Namespace, splits: list[Path]) -> str:
    """Write report.md with the finished part of the tables; returns its text."""
    options = f" Options of the stages: `{shlex.join(arguments.stage_options)}`." if arguments.stage_options else ""
    parts = [
        f"Paper: T2VQA-DB, mean of 10 splits. Ours: '{arguments.data}', {len(splits)} {arguments.kind} splits, "
        f"starting from '{arguments.init_from}'; test part, mean ± standard deviation over the splits.{options}"
    ]
    for number in arguments.table:
        parts.append(format_table(TABLES[number], read_figures(TABLES[number], splits, arguments.output)))
    text = "\n\n".join(parts) + "\n"
    write_text(arguments.output / "report.md", text)
    return text
