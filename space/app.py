"""The Space: a page that scores generated videos and shows where, when and by which word of the prompt they fail.

    python space/app.py        # http://127.0.0.1:7860

By default it uses the small model in the package and needs no network. The environment variable AIGCVQA_MODEL selects
another model by its folder or Hub id.
"""

import functools
import html
import logging
import os
import shutil
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr
from clips import (
    CLIP_LIMITS,
    CLIP_SUFFIXES,
    MAX_ROWS,
    check_prompt,
    check_upload,
    clip_name,
    gather_clips,
    read_table,
    reading_a_clip,
)

from modeling_aigcvqa import AIGCVQAPipeline, load_pipeline
from modeling_aigcvqa.common.cells import csv_line
from modeling_aigcvqa.common.choices import SHIPPED
from modeling_aigcvqa.common.files import write_text
from modeling_aigcvqa.explain import Explanation, explain
from modeling_aigcvqa.explain.page import note_html, scores_html, short_name, stylesheet, words_html
from modeling_aigcvqa.explain.report import write_report
from modeling_aigcvqa.pipeline_aigcvqa import SCORES

HERE = Path(__file__).parent
RUNS = Path(tempfile.gettempdir()) / "aigcvqa-space"
KEEP_SECONDS = 3600
EXAMPLES = [
    ["dancers.mp4", "In a sandy desert, three dancers in blue tutus are standing still"],
    ["dancers_warped.mp4", "In a sandy desert, three dancers in blue tutus are standing still"],
    ["not_the_prompt.mp4", "A video of two green hot-air balloons drifting to the left on a beach by the sea."],
]
MEGABYTES = CLIP_LIMITS.max_bytes // 2**20
TABLE_COLUMNS = ("file", "prompt")
TEXT_COLUMNS = ("score", *TABLE_COLUMNS)
INTRO = """
# AIGC-VQA
Scores an AI-generated video and its prompt, and shows **where**, **when** and by **which word** the video fails.
"""
ABOUT = f"""
Higher is better, and only scores of the same model can be compared. The limits are {MEGABYTES} MB,
{CLIP_LIMITS.max_seconds:.0f} s and 1920 x 1088 pixels per clip and {MAX_ROWS} rows per table. Uploads are deleted after
an hour.
"""
STYLE = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
footer { display: none !important; }
.refused { margin: 0; padding: .7rem 1rem; border-left: 4px solid #b2182b; border-radius: 6px;
  background: rgb(178 24 43 / .12); }
.aigcvqa-table { width: 100%; border: 0 !important; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.aigcvqa-table th, .aigcvqa-table td { padding: .45rem .8rem !important; text-align: right; border: 0 !important;
  border-bottom: 1px solid rgb(128 128 128 / .25) !important; }
.aigcvqa-table .text { text-align: left; overflow-wrap: break-word; }
.aigcvqa-table .best { font-weight: 700; color: #2166ac; }
.dark .aigcvqa-table .best { color: #7db4e6; }
"""
log = logging.getLogger("aigcvqa.space")


@functools.cache
def scorer() -> AIGCVQAPipeline:
    return load_pipeline(os.environ.get("AIGCVQA_MODEL", SHIPPED))


def new_run() -> Path:
    """A new folder for one visitor's results. Folders older than KEEP_SECONDS are deleted."""
    RUNS.mkdir(parents=True, exist_ok=True)
    for folder in RUNS.iterdir():
        if folder.is_dir() and time.time() - folder.stat().st_mtime > KEEP_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=RUNS))


def with_visible_errors(results: int) -> Callable:
    """Decorator for handlers that return a headline (HTML) and `results` more outputs; shows errors to the visitor.

    The decorated handler also makes the column of the results visible, as its second output. If the handler raises an
    error, the headline is a message and the results are hidden. The message of an unexpected error says nothing about
    its cause, which goes to the log.
    """

    def decorate(handler: Callable) -> Callable:
        @functools.wraps(handler)
        def handle(*arguments, **options) -> list:
            try:
                headline, *shown = handler(*arguments, **options)
                return [headline, gr.update(visible=True), *shown]
            except (ValueError, TypeError, OSError) as error:
                log.info("refused: %s", error)
                message = without_folders(str(error))
            except Exception:
                log.exception("failed")
                message = "Something failed on our side. Try again, or use another clip."
            refusal = f'<p class="refused" role="alert">{html.escape(message)}</p>'
            return [refusal, gr.update(visible=False), *[gr.update()] * results]

        return handle

    return decorate


def without_folders(message: str) -> str:
    """The message without the server's folders, so that only the names of the visitor's files are left."""
    words = [piece.rsplit("/", 1)[-1] if piece.startswith("/") else piece for piece in message.split("'")]
    return "'".join(words)


def explain_upload(file: str | None, prompt: str | None, progress: gr.Progress) -> tuple[Explanation, dict[str, Path]]:
    with reading_a_clip():
        path, prompt = check_upload(file), check_prompt(prompt)
        progress(0, desc="scoring")
        explanation = explain(
            scorer(), str(path), prompt, progress=lambda done, total: progress((done, total), desc="scoring windows")
        )
        progress(1, desc="drawing")
        return explanation, write_report(explanation, str(path), new_run())


@with_visible_errors(results=4)
def show_clip(file, prompt, progress=gr.Progress()):  # noqa: B008 (Gradio finds the progress bar in the default)
    """Score one clip; returns note and scores, words, overlay, timeline, and the report to download."""
    explanation, paths = explain_upload(file, prompt, progress)
    return (
        note_html(explanation.note) + scores_html(explanation.scores),
        words_html(explanation),
        gr.update(value=paths.get("overlay"), visible="overlay" in paths),
        paths["timeline"],
        paths["report"],
    )


@with_visible_errors(results=4)
def compare_clips(first, second, prompt, progress=gr.Progress()):  # noqa: B008
    """Compare two clips of one prompt; returns a table, and the overlay and the words of each clip."""
    results = [explain_upload(file, prompt, progress) for file in (first, second)]
    explanations = [explanation for explanation, _ in results]
    pieces = [note_html(explanations[0].note) + comparison_html(*explanations)]
    for explanation, paths in results:
        pieces += [gr.update(value=paths.get("overlay"), visible="overlay" in paths), words_html(explanation)]
    return pieces


def comparison_html(first: Explanation, second: Explanation) -> str:
    """A table of the scores of two clips; the better score is marked."""
    rows = []
    for name, left in first.scores.items():
        right = second.scores[name]
        marks = ['class="best"' if value == max(left, right) and left != right else "" for value in (left, right)]
        rows.append(
            f'<tr><td class="text">{name.removesuffix("_score")}</td><td {marks[0]}>{left:.3f}</td>'
            f"<td {marks[1]}>{right:.3f}</td><td>{right - left:+.3f}</td></tr>"
        )
    names = [html.escape(short_name(explanation.video)) for explanation in (first, second)]
    return table_html(["score", *names, "difference"], rows)


def table_html(columns: list[str], rows: list[str]) -> str:
    """A table from the names of its columns (HTML) and its rows (`<tr>...</tr>`)."""
    head = "".join(f'<th class="{"text" if name in TEXT_COLUMNS else ""}">{name}</th>' for name in columns)
    return f'<table class="aigcvqa-table"><tr>{head}</tr>{"".join(rows)}</table>'


@with_visible_errors(results=1)
def score_table(table, files, progress=gr.Progress()):  # noqa: B008
    """Score the clips of a CSV; returns a table and a CSV to download. A defective row does not stop the others."""
    rows, folder = read_table(table), new_run()
    clips = gather_clips(files, folder)
    scored = []
    for number, row in enumerate(rows):
        progress((number, len(rows)), desc="scoring")
        scored.append(row | score_row(row, clips))
    columns = list(dict.fromkeys([*rows[0], *[name for row in scored for name in SCORES if name in row], "error"]))
    output = folder / "scores.csv"
    lines = [csv_line(columns), *(csv_line(row.get(name) for name in columns) for row in scored)]
    write_text(output, "".join(lines))
    failed = sum("error" in row for row in scored)
    summary = f"<p>{len(scored) - failed} of {len(scored)} clips scored.</p>"
    return note_html(scorer().model.config.weights_note) + summary + rows_html(scored), output


def rows_html(rows: list[dict]) -> str:
    """A table of the scored rows. Long prompts are shortened here but complete in the CSV."""
    shown = []
    for row in rows:
        file, prompt = (html.escape(textwrap.shorten(row[name] or "", 80, placeholder="...")) for name in TABLE_COLUMNS)
        if "error" in row:
            values = f'<td class="text" colspan="{len(SCORES)}">{html.escape(row["error"])}</td>'
        else:
            values = "".join(f"<td>{row[name]:.3f}</td>" if name in row else "<td></td>" for name in SCORES)
        shown.append(f'<tr><td class="text">{file}</td><td class="text">{prompt}</td>{values}</tr>')
    return table_html([*TABLE_COLUMNS, *(name.removesuffix("_score") for name in SCORES)], shown)


def score_row(row: dict[str, str], clips: dict[str, Path]) -> dict:
    """The scores of one row of the visitor's table, or `{"error": MESSAGE}`."""
    try:
        path = clips.get(clip_name(row["file"] or ""))
        if path is None:
            raise ValueError(f"'{row['file']}' was not uploaded.")
        with reading_a_clip():
            return scorer()({"video": str(check_upload(str(path))), "prompt": check_prompt(row["prompt"])})
    except (ValueError, TypeError, OSError) as error:
        return {"error": without_folders(str(error))}


def clip_input(label: str, **options) -> gr.File:
    return gr.File(label=label, file_types=list(CLIP_SUFFIXES), height=150, **options)


def overlay_output(**options) -> gr.Video:
    return gr.Video(show_label=False, autoplay=True, loop=True, interactive=False, **options)


def one_clip_tab() -> None:
    with gr.Row():
        with gr.Column(scale=2):
            file = clip_input("Video (mp4, GIF, ...)", elem_id="clip")
        with gr.Column(scale=3):
            prompt = gr.Textbox(label="Prompt", placeholder="a corgi walking in the park", lines=3, elem_id="prompt")
            button = gr.Button("Score", variant="primary", elem_id="score")
    examples = [[str(HERE / "examples" / name), text] for name, text in EXAMPLES]
    gr.Examples(examples, [file, prompt], label="Examples (drawn by our synthetic benchmark)")
    scores = gr.HTML(elem_id="scores")
    with gr.Column(visible=False) as results:
        gr.Markdown("### Which word")
        words = gr.HTML(elem_id="words")
        gr.Markdown("### Where\nRed is worse than the mean of the clip, blue is better.")
        overlay = overlay_output()
        gr.Markdown("### When\nThe dashed line is the score of the whole clip.")
        timeline = gr.Image(show_label=False, interactive=False, buttons=["fullscreen", "download"], elem_id="timeline")
        report = gr.DownloadButton("Download these results as one page (HTML)", elem_id="report")
    button.click(show_clip, [file, prompt], [scores, results, words, overlay, timeline, report], concurrency_id="model")


def compare_tab() -> None:
    with gr.Row():
        first, second = clip_input("First video", elem_id="first"), clip_input("Second video", elem_id="second")
    prompt = gr.Textbox(label="Prompt of both", placeholder="a corgi walking in the park", elem_id="compare-prompt")
    button = gr.Button("Compare", variant="primary", elem_id="compare")
    table = gr.HTML(elem_id="comparison")
    pictures = []
    with gr.Row(visible=False) as results:
        for _ in range(2):
            with gr.Column():
                pictures += [overlay_output(buttons=[]), gr.HTML()]
    button.click(compare_clips, [first, second, prompt], [table, results, *pictures], concurrency_id="model")


def table_tab() -> None:
    gr.Markdown("Upload a CSV with the columns `file` and `prompt`, and the clips that it names, as files or in a zip.")
    with gr.Row():
        table = gr.File(label="Table (.csv)", file_types=[".csv"], height=150, elem_id="table")
        types = [*CLIP_SUFFIXES, ".zip"]
        files = gr.File(label="Clips (or .zip)", file_count="multiple", file_types=types, height=150, elem_id="clips")
    button = gr.Button("Score all", variant="primary", elem_id="score-all")
    summary = gr.HTML(elem_id="summary")
    with gr.Column(visible=False) as results:
        download = gr.DownloadButton("Download scores.csv", elem_id="download")
    button.click(score_table, [table, files], [summary, results, download], concurrency_id="model")


def build() -> gr.Blocks:
    with gr.Blocks(title="AIGC-VQA", analytics_enabled=False, delete_cache=(KEEP_SECONDS, KEEP_SECONDS)) as page:
        gr.Markdown(INTRO)
        with gr.Tab("One clip"):
            one_clip_tab()
        with gr.Tab("Compare two clips"):
            compare_tab()
        with gr.Tab("Many clips (CSV)"):
            table_tab()
        gr.Markdown(ABOUT)
    return page


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # One clip at a time because the model uses all cores. In a queue of more than 20, visitors would wait for minutes.
    page = build().queue(default_concurrency_limit=1, max_size=20)
    # With the fonts of the visitor's system, nothing is fetched from other servers.
    fonts, monospaced = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    theme = gr.themes.Soft(primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=monospaced)
    limit = f"{MEGABYTES}mb"
    page.launch(max_file_size=limit, theme=theme, css=stylesheet() + STYLE, footer_links=[], show_error=False)


if __name__ == "__main__":
    main()
