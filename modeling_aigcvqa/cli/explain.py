"""`aigcvqa explain`: show which places, moments and words lower the scores of a clip."""

import argparse
from pathlib import Path

from rich.console import Console

from ..common.choices import WINDOW_WEIGHTS
from ..common.console import progress_bar
from .shared import add_model_arguments, print_table

HELP = "show which places, moments and words lower the scores of a clip"
DESCRIPTION = "Writes heat maps over the video, a timeline, the effect of every word and an HTML page with all of it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", metavar="VIDEO", help="a file, folder of frames or URL")
    parser.add_argument("--prompt", help="the prompt that the video was generated from")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    add_model_arguments(parser)
    parser.add_argument(
        "--window", type=int, help="length of a window in frames (default: the number that the model scores)"
    )
    parser.add_argument("--stride", type=int, help="frames from one window to the next (default: half a window)")
    parser.add_argument(
        "--weights", choices=WINDOW_WEIGHTS, default=WINDOW_WEIGHTS[0], help="weights of overlapping windows"
    )


def run(arguments: argparse.Namespace, errors: Console) -> int:
    if arguments.output.is_file():
        raise ValueError(f"--output '{arguments.output}' is a file; name a folder.")
    from ..explain import explain
    from ..loading import load_pipeline

    try:
        from ..explain.report import write_report
    except ImportError as error:  # matplotlib, which scoring does not need
        raise ValueError(str(error)) from error
    pipeline = load_pipeline(arguments.model, None, arguments.device, arguments.dtype)
    with progress_bar(errors) as progress:
        task = progress.add_task("windows", total=None)
        explanation = explain(
            pipeline,
            arguments.video,
            arguments.prompt,
            arguments.window,
            arguments.stride,
            arguments.weights,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
        paths = write_report(explanation, arguments.video, arguments.output)
    parts = {"quality_of": pipeline.model.config.quality_of}
    scores = {**explanation.scores, **explanation.percentiles, **parts}
    print_table([{"file": arguments.video, **scores}], explanation.note)
    if explanation.percentiles:
        errors.print(explanation.about_scale)
    if explanation.words:
        print("weakest words:", ", ".join(word.word for word in explanation.weakest_words()) or "none stands out")
    for name, path in paths.items():
        print(f"{name}: {path}")
    return 0
