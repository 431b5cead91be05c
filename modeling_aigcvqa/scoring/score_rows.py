"""Score the rows of a manifest, into a file of scores or into memory."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from .. import __version__
from ..names_aigcvqa import RESULTS, SCALE, UNCERTAINTY
from .rows import Items, digest_of_rows
from .score_file import ScoreFile

Advance = Callable[[], None]


def record_of(
    pipeline: Any,
    model: str,
    clips: list[str],
    rows: list[dict],
    alignment_num_frames: int | None = None,
    on_damage: str = "raise",
    uncertainty: int | None = None,
    scale: bool = False,
) -> dict[str, Any]:
    """What decides about the scores of rows.

    Args:
        pipeline: that scores; `model` is its name, and the other arguments are its options.
        clips, rows: of `rows_of_manifest`.
    """
    from ..loading import model_source
    from ..loading.identity import digest_of_model

    return {
        "aigcvqa": __version__,
        "model": model,
        "model_sha256": digest_of_model(model_source(model)),
        "branches": pipeline.model.config.branches,
        "dtype": str(pipeline.model.dtype).removeprefix("torch."),
        "alignment_num_frames": alignment_num_frames,
        "on_damage": on_damage,
        **({} if uncertainty is None else {"uncertainty": uncertainty}),
        **({"scale": True} if scale else {}),
        "rows": len(rows),
        "rows_sha256": digest_of_rows(clips, rows),
    }


def opened_file(path: Path | None, rows: list[dict], made_by: dict[str, Any], overwrite: bool = False) -> Any:
    """The file of scores that `record_of` describes; for no path a context manager that gives None."""
    if path is None:
        return nullcontext()
    asked = (*(UNCERTAINTY if "uncertainty" in made_by else ()), *(SCALE if "scale" in made_by else ()))
    return ScoreFile(path, rows, made_by, overwrite, (*RESULTS, *asked))


def scored(
    pipeline: Any, clips: list[str], rows: list[dict], start: int = 0, **options: Any
) -> Iterator[tuple[dict, dict]]:
    """The rows from number `start` on, each with its result, as they are scored.

    Args:
        options: of the pipeline.
    """
    items = Items(clips[start:], rows[start:])
    results: Iterable[dict] = pipeline(items, on_error="return", **options) if items.rows else ()
    yield from zip(items.rows, results)


def check_prompts(pipeline: Any, rows: list[dict]) -> None:
    """Raise ValueError if the model needs prompts and no row has one."""
    if pipeline.processor.requires_prompt and not any(row.get("prompt") for row in rows):
        raise ValueError(
            "the alignment branch needs the prompts, and there is none: pass --prompt TEXT or a manifest with a column "
            "prompt, or leave the branch out with --branches technical,aesthetic."
        )
