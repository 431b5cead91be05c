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
    preview_html,
    read_table,
    reading_a_clip,
    thumbnail,
)

from modeling_aigcvqa import AIGCVQAPipeline, load_pipeline
from modeling_aigcvqa.common.cells import csv_line
from modeling_aigcvqa.common.choices import SHIPPED
from modeling_aigcvqa.common.files import write_text
from modeling_aigcvqa.explain import ColorScale, Explanation, explain
from modeling_aigcvqa.explain.page import (
    bar_html,
    note_html,
    player_html,
    scored_text,
    scores_html,
    script,
    short_name,
    stylesheet,
    timeline_html,
    windows_html,
    words_html,
)
from modeling_aigcvqa.explain.report import write_report
from modeling_aigcvqa.names_aigcvqa import PERCENTILE_OF, SCALE, SCORES

HERE = Path(__file__).parent
RUNS = Path(tempfile.gettempdir()) / "aigcvqa-space"
KEEP_SECONDS = 3600
DANCERS = "In a sandy desert, three dancers in blue tutus are standing still"
BALLOONS = "A video of two green hot-air balloons drifting to the left on a beach by the sea."
EXAMPLES = [  # file, prompt, what it shows
    ("dancers.mp4", DANCERS, "a good clip"),
    ("dancers_warped.mp4", DANCERS, "the same, warped"),
    ("not_the_prompt.mp4", BALLOONS, "not its prompt"),
]
MEGABYTES = CLIP_LIMITS.max_bytes // 2**20
TABLE_COLUMNS = ("file", "prompt")
TEXT_COLUMNS = ("score", *TABLE_COLUMNS)
INTRO = """
# How good is this AI-generated video?
Upload a video and the prompt that it was made from. You get scores, and see **where**, **when** and by **which word**
of the prompt the video fails.
"""
ABOUT = f"""
Higher is better, and only scores of the same model can be compared. Limits: {MEGABYTES} MB,
{CLIP_LIMITS.max_seconds:.0f} s and 1920 x 1088 pixels per video, {MAX_ROWS} rows per table. Uploads are deleted after
an hour.
"""
STYLE = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
footer { display: none !important; }
#scores, #comparison, #summary { scroll-margin-top: 1rem; }
.aigcvqa-preview { margin: 0; } .aigcvqa-preview video, .aigcvqa-preview img { display: block; max-width: 100%;
  max-height: 260px; border-radius: 8px; } .aigcvqa-preview p { margin: .3rem 0 0; font-size: .85rem; opacity: .8; }
.refused { margin: 0; padding: .7rem 1rem; border-left: 4px solid #b2182b; border-radius: 6px;
  background: rgb(178 24 43 / .12); }
.aigcvqa-table { width: 100%; border: 0 !important; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.aigcvqa-table th, .aigcvqa-table td { padding: .45rem .8rem !important; text-align: right; border: 0 !important;
  border-bottom: 1px solid rgb(128 128 128 / .25) !important; }
.aigcvqa-table .text { text-align: left; overflow-wrap: break-word; }
.aigcvqa-table .best { font-weight: 700; color: #2166ac; }
.dark .aigcvqa-table .best { color: #7db4e6; }
.aigcvqa-table tr, .aigcvqa-samplings tr, .aigcvqa-samplings td, .aigcvqa-samplings th { border: 0 !important;
  background: transparent !important; }
.aigcvqa-table .aigcvqa-bar { min-width: 5rem; } .aigcvqa-table td p { margin: 0; font-size: .8rem; }
.aigcvqa-wide { overflow-x: auto; }
"""
# Gradio rewrites the rules of `css`, and loses those for small screens; in the head they stay as they are.
PHONE = """
.gradio-container .wrap, .gradio-container main { min-width: 0 !important; width: 100%; max-width: 100% !important; }
#examples { flex-wrap: nowrap !important; }
#examples > * { flex: 1 1 0 !important; min-width: 0 !important; overflow: hidden; }
@media (max-width: 640px) {
  body .gradio-container.gradio-container { width: 100vw; max-width: 100vw !important; min-width: 0 !important; }
  .gradio-container .main { padding: .8rem !important; min-width: 0 !important; max-width: 100vw !important; }
  .gradio-container .html-container, .gradio-container .prose, .gradio-container .tabitem { min-width: 0 !important; }
  .gradio-container .row:not(#examples) { flex-wrap: wrap !important; }
  .gradio-container .row:not(#examples) > * { flex: 1 1 100% !important; }
  .gradio-container .column, .gradio-container .block, .gradio-container .tabs { min-width: 0 !important; }
}
"""
# When results are there and out of sight, as on a phone, the page moves to them.
SHOW_RESULTS = """() => {{ const found = document.querySelector("#{0}"); if (!found) return;
  if (found.getBoundingClientRect().top > 0.6 * innerHeight) found.scrollIntoView({{ behavior: "smooth" }}); }}"""
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


def explain_upload(file: str | None, prompt: str | None, progress: gr.Progress) -> Explanation:
    with reading_a_clip():
        path, prompt = check_upload(file), check_prompt(prompt)
        progress(0, desc="scoring")
        return explain(
            scorer(), str(path), prompt, progress=lambda done, total: progress((done, total), desc="scoring windows")
        )


def drawn(explanation: Explanation, file: str, scale: ColorScale | None, progress: gr.Progress) -> dict[str, Path]:
    """The files of an explanation's report."""
    with reading_a_clip():
        progress(1, desc="drawing")
        return write_report(explanation, file, new_run(), scale)


@with_visible_errors(results=4)
def show_clip(file, prompt, progress=gr.Progress()):  # noqa: B008 (Gradio finds the progress bar in the default)
    """Score one clip; returns scores, words, the player of the maps, the timeline, and the report to download."""
    explanation = explain_upload(file, prompt, progress)
    paths = drawn(explanation, file, None, progress)
    scored = f'<p class="aigcvqa-hint">{html.escape(scored_text(explanation))}</p>'
    scores = scores_html(explanation.scores, explanation.percentiles, explanation.about_scale)
    return (
        note_html(explanation.note) + scored + scores,
        words_html(explanation),
        windows_html(explanation) + player_html(explanation, paths.get("overlay"), inline=True),
        timeline_html(explanation),
        paths["report"],
    )


@with_visible_errors(results=4)
def compare_clips(first, second, prompt, progress=gr.Progress()):  # noqa: B008
    """Compare two clips of one prompt; returns a table, and of each the maps, in the same colours, and the words."""
    explanations = [explain_upload(file, prompt, progress) for file in (first, second)]
    scale = ColorScale.over(explanations)
    pieces = [note_html(explanations[0].note) + comparison_html(*explanations)]
    for explanation, file in zip(explanations, (first, second)):
        paths = drawn(explanation, file, scale, progress)
        heading = f"<h3>{html.escape(short_name(explanation.video))}</h3>"
        pieces += [
            heading + player_html(explanation, paths.get("overlay"), scale, inline=True),
            words_html(explanation),
        ]
    return pieces


def comparison_html(first: Explanation, second: Explanation) -> str:
    """A table of the scores of two clips, with their places among the reference; the better score is marked."""
    rows = []
    for name, percentile in PERCENTILE_OF.items():
        if name not in first.scores:
            continue
        left, right = first.scores[name], second.scores[name]
        cells = []
        for explanation, value in ((first, left), (second, right)):
            mark = "best" if value == max(left, right) and left != right else ""
            place = explanation.percentiles.get(percentile)
            bar = "" if place is None else bar_html(place)
            cells.append(f'<td><span class="{mark}">{value:.2f}</span>{bar}</td>')
        rows.append(
            f'<tr><td class="text">{name.removesuffix("_score")}</td>{"".join(cells)}<td>{right - left:+.2f}</td></tr>'
        )
    names = [html.escape(short_name(explanation.video)) for explanation in (first, second)]
    about = f'<p class="aigcvqa-hint">{html.escape(first.about_scale)}</p>' if first.about_scale else ""
    return table_html(["score", *names, "difference"], rows) + about


def table_html(columns: list[str], rows: list[str]) -> str:
    """A table from the names of its columns (HTML) and its rows (`<tr>...</tr>`)."""
    head = "".join(f'<th class="{"text" if name in TEXT_COLUMNS else ""}">{name}</th>' for name in columns)
    return f'<div class="aigcvqa-wide"><table class="aigcvqa-table"><tr>{head}</tr>{"".join(rows)}</table></div>'


@with_visible_errors(results=1)
def score_table(table, files, progress=gr.Progress()):  # noqa: B008
    """Score the clips of a CSV; returns a table and a CSV to download. A defective row does not stop the others."""
    rows, folder = read_table(table), new_run()
    clips = gather_clips(files, folder)
    scored = []
    for number, row in enumerate(rows):
        progress((number, len(rows)), desc="scoring")
        scored.append(row | score_row(row, clips))
    columns = list(
        dict.fromkeys([*rows[0], *[name for row in scored for name in (*SCORES, *SCALE) if name in row], "error"])
    )
    output = folder / "scores.csv"
    lines = [csv_line(columns), *(csv_line(row.get(name) for name in columns) for row in scored)]
    write_text(output, "".join(lines))
    failed = sum("error" in row for row in scored)
    summary = f"<p>{len(scored) - failed} of {len(scored)} clips scored.</p>"
    config = scorer().model.config
    about = f'<p class="aigcvqa-hint">{html.escape(config.about_scale)}</p>' if config.about_scale else ""
    return note_html(config.weights_note) + summary + rows_html(scored) + about, output


def rows_html(rows: list[dict]) -> str:
    """A table of the scored rows. Long prompts are shortened here but complete in the CSV."""
    shown = []
    for row in rows:
        file, prompt = (html.escape(textwrap.shorten(row[name] or "", 80, placeholder="...")) for name in TABLE_COLUMNS)
        if "error" in row:
            values = f'<td class="text" colspan="{len(SCORES)}">{html.escape(row["error"])}</td>'
        else:
            values = "".join(f"<td>{score_cell(row, name)}</td>" for name in SCORES)
        shown.append(f'<tr><td class="text">{file}</td><td class="text">{prompt}</td>{values}</tr>')
    return table_html([*TABLE_COLUMNS, *(name.removesuffix("_score") for name in SCORES)], shown)


def score_cell(row: dict, name: str) -> str:
    place = row.get(PERCENTILE_OF[name])
    return "" if name not in row else f"{row[name]:.2f}" + ("" if place is None else bar_html(place))


def score_row(row: dict[str, str], clips: dict[str, Path]) -> dict:
    """The scores of one row of the visitor's table, or `{"error": MESSAGE}`."""
    try:
        path = clips.get(clip_name(row["file"] or ""))
        if path is None:
            raise ValueError(f"'{row['file']}' was not uploaded.")
        with reading_a_clip():
            result = scorer()({"video": str(check_upload(str(path))), "prompt": check_prompt(row["prompt"])})
        return result | scorer().model.config.on_scale(result)
    except (ValueError, TypeError, OSError) as error:
        return {"error": without_folders(str(error))}


def clip_input(label: str, **options) -> gr.File:
    return gr.File(label=label, file_types=list(CLIP_SUFFIXES), height=150, **options)


def clip_with_preview(label: str, elem_id: str) -> gr.File:
    """An upload, and below it the video as the visitor knows it."""
    file = clip_input(label, elem_id=elem_id)
    preview = gr.HTML(elem_id=f"{elem_id}-preview")
    file.change(preview_html, file, preview, show_progress="hidden", queue=False)
    return file


def examples(file: gr.File, prompt: gr.Textbox) -> None:
    """Examples with pictures; a click fills in the video and its prompt."""
    gr.Markdown("Or take an example, drawn by our synthetic benchmark:")
    with gr.Row(elem_id="examples"):
        for name, text, caption in EXAMPLES:
            path = HERE / "examples" / name
            with gr.Column(min_width=90):
                options = {"show_label": False, "interactive": False, "buttons": [], "container": False}
                picture = gr.Image(thumbnail(path), height=110, min_width=80, **options)
                button = gr.Button(caption, size="sm", min_width=80)
            for chosen in (picture.select, button.click):
                chosen(lambda path=path, text=text: (str(path), text), None, [file, prompt], show_progress="hidden")


def run_on_click(button: gr.Button, handler: Callable, inputs: list, headline: gr.HTML, rest: list) -> None:
    """Old results go, progress stands in a place of its own, and new results come into sight."""
    status, results = rest[0], rest[1]
    cleared = button.click(
        lambda: ["", "<p>Working ...</p>", gr.update(visible=False)], None, [headline, status, results], queue=False
    )
    done = cleared.then(
        handler, inputs, [headline, *rest[1:]], concurrency_id="model", show_progress_on=[status], show_progress="full"
    )
    done.then(lambda: "", None, status, queue=False).then(None, js=SHOW_RESULTS.format(headline.elem_id))


def one_clip_tab() -> None:
    with gr.Row():
        with gr.Column(scale=2):
            file = clip_with_preview("Video (mp4, GIF, ...)", "clip")
        with gr.Column(scale=3):
            prompt = gr.Textbox(
                label="Prompt", placeholder="a corgi walking in the park", lines=3, max_lines=8, elem_id="prompt"
            )
            button = gr.Button("Score", variant="primary", elem_id="score")
            examples(file, prompt)
    status, scores = gr.HTML(elem_id="status"), gr.HTML(elem_id="scores")
    with gr.Column(visible=False) as results:
        gr.Markdown("### Which word")
        words = gr.HTML(elem_id="words")
        gr.Markdown("### Where\nRed is worse than the mean of the clip, blue is better.")
        overlay = gr.HTML(elem_id="overlay")
        gr.Markdown("### When\nThe dashed line is the mean of each curve.")
        timeline = gr.HTML(elem_id="timeline")
        report = gr.DownloadButton("Download these results as one page (HTML)", elem_id="report")
    run_on_click(button, show_clip, [file, prompt], scores, [status, results, words, overlay, timeline, report])


def compare_tab() -> None:
    gr.Markdown("Two videos of the same prompt. Both are shown in the same colours, so the worse one looks worse.")
    with gr.Row():
        with gr.Column():
            first = clip_with_preview("First video", "first")
        with gr.Column():
            second = clip_with_preview("Second video", "second")
    prompt = gr.Textbox(label="Prompt of both", placeholder="a corgi walking in the park", elem_id="compare-prompt")
    button = gr.Button("Compare", variant="primary", elem_id="compare")
    status, table = gr.HTML(elem_id="compare-status"), gr.HTML(elem_id="comparison")
    pictures = []
    with gr.Row(visible=False) as results:
        for place in ("first", "second"):
            with gr.Column():
                pictures += [gr.HTML(elem_id=f"{place}-overlay"), gr.HTML(elem_id=f"{place}-words")]
    run_on_click(button, compare_clips, [first, second, prompt], table, [status, results, *pictures])


def table_tab() -> None:
    gr.Markdown(
        "Upload a CSV with the columns `file` and `prompt`, and the videos that it names, as files or in a zip."
    )
    with gr.Row():
        table = gr.File(label="Table (.csv)", file_types=[".csv"], height=150, elem_id="table")
        types = [*CLIP_SUFFIXES, ".zip"]
        files = gr.File(label="Videos (or .zip)", file_count="multiple", file_types=types, height=150, elem_id="clips")
    button = gr.Button("Score all", variant="primary", elem_id="score-all")
    status, summary = gr.HTML(elem_id="table-status"), gr.HTML(elem_id="summary")
    with gr.Column(visible=False) as results:
        download = gr.DownloadButton("Download scores.csv", elem_id="download")
    run_on_click(button, score_table, [table, files], summary, [status, results, download])


def build() -> gr.Blocks:
    with gr.Blocks(title="AIGC-VQA", analytics_enabled=False, delete_cache=(KEEP_SECONDS, KEEP_SECONDS)) as page:
        gr.Markdown(INTRO)
        with gr.Tab("One video"):
            one_clip_tab()
        with gr.Tab("Compare two"):
            compare_tab()
        with gr.Tab("Many"):
            table_tab()
        with gr.Tab("Tour"):
            gr.Markdown((HERE / "tour.md").read_text(encoding="utf-8"), elem_id="tour")
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
    page.launch(
        max_file_size=limit,
        theme=theme,
        css=stylesheet() + STYLE,
        head=f"<style>{PHONE}</style><script>{script()}</script>",
        footer_links=[],
        allowed_paths=[str(HERE / "examples")],
        show_error=False,
    )


if __name__ == "__main__":
    main()
