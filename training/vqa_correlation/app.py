"""Gradio Space of the metric: upload a CSV file of scores and see the figures."""

from pathlib import Path

import evaluate
import gradio as gr
import pandas as pd

METRIC = str(Path(__file__).with_name("vqa_correlation.py"))
GROUPS = ("generators", "categories")
INTRODUCTION = """# VQA correlation
Upload a CSV file. Columns `predictions, references` (and, if you have them, `generators` and `categories`) give SROCC,
PLCC, KROCC, RMSE and the main score with 95 % intervals; columns `predictions_a, predictions_b, preferences` (`A`, `B`
or `same`) give pairwise accuracy with and without ties."""


def _columns(table: pd.DataFrame, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, list]:
    missing = [name for name in required if name not in table]
    if missing:
        raise gr.Error(f"The file has the columns {list(table.columns)} but not {missing}; rename or add them.")
    return {name: table[name].tolist() for name in (*required, *optional) if name in table}


def report(path: str | None) -> dict:
    """Figures of the scores in a CSV file. Errors are raised as `gr.Error`, which the page shows."""
    if path is None:
        raise gr.Error("Choose a CSV file first.")
    table = pd.read_csv(path)
    try:
        if "preferences" in table:
            columns = _columns(table, ("predictions_a", "predictions_b", "preferences"))
            return evaluate.load(METRIC, "pairs").compute(**columns)
        columns = _columns(table.fillna({"generators": "", "categories": ""}), ("predictions", "references"), GROUPS)
        return evaluate.load(METRIC).compute(**columns)
    except (TypeError, ValueError) as error:
        raise gr.Error(str(error)) from error


with gr.Blocks(title="VQA correlation") as demo:
    gr.Markdown(INTRODUCTION)
    file = gr.File(label="CSV file", file_types=[".csv"], type="filepath")
    button = gr.Button("Compute", variant="primary")
    output = gr.JSON(label="Result")
    button.click(report, inputs=file, outputs=output)

if __name__ == "__main__":
    demo.launch()
