"""A run of probes: from clips to the page, the verdicts and the records."""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .._version import __version__
from ..clip_scorer import ScorerIdentity, ScorerSettings
from ..common.files import write_json, write_text
from ..reward import AIGCVQAReward
from .measure import MAX_FRAMES, MAX_SIDE, ProbedClip, Prober
from .page import page_html
from .record_file import append, opened
from .tricks import ASCENT_STEPS
from .verdicts import rows_of

RECORDS, SUMMARY, PAGE = "records.jsonl", "probes.json", "index.html"
FEWEST_CLIPS = 3  # the deviation of fewer scores says nothing
OTHER_PROMPTS = 20  # per clip


def probe(
    settings: ScorerSettings,
    clips: Sequence[ProbedClip],
    output: Path,
    ascent_steps: int = ASCENT_STEPS,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure clips and write index.html, probes.json and records.jsonl. The same call goes on with an earlier one.

    Args:
        clips: with different names.
        output: folder.
        ascent_steps: of the gradient ascent; 0 leaves it out.
        progress: called with the number of clips that are done, and of all.

    Returns:
        What probes.json holds: `clips`, `failed` (file and error), `rows` (as dicts of `Row`), and what was probed.

    Raises:
        ValueError: for fewer than three clips that can be scored, or a folder with the records of other probes.
    """
    identity = ScorerIdentity.of(settings)
    bare = next((clip.name for clip in clips if not isinstance(clip.prompt, str) or not clip.prompt.strip()), None)
    if bare is not None and identity.requires_prompt:
        raise ValueError(f"'{bare}' has no prompt, which probes of the alignment branch need; add it to the manifest.")
    header = {
        "aigcvqa": __version__,
        "model": settings.model,
        "model_sha256": identity.model_sha256,
        "options": identity.options,
        "ascent_steps": ascent_steps,
        "max_frames": MAX_FRAMES,
        "max_side": MAX_SIDE,
        "clips": [[clip.name, clip.prompt] for clip in clips],
    }
    output.mkdir(parents=True, exist_ok=True)
    records = opened(output / RECORDS, header, overwrite)
    done = len(records)
    if done < len(clips):
        prober = Prober(lambda **options: _reward(settings, **options), ascent_steps)
        for clip in clips[done:]:
            progress(done, len(clips))
            record: dict[str, Any] = {"file": clip.name, "prompt": clip.prompt}
            try:
                record |= prober(clip, other_prompts(clips, clip))
            except (ValueError, OSError) as error:
                record["error"] = str(error)
            append(output / RECORDS, record)
            records.append(record)
            done += 1
    progress(done, len(clips))
    failed = [{"file": record["file"], "error": record["error"]} for record in records if "error" in record]
    good = [record for record in records if "error" not in record]
    if len(good) < FEWEST_CLIPS:
        reason = f" (the first failed: {failed[0]['error']})" if failed else ""
        raise ValueError(f"probes need at least {FEWEST_CLIPS} clips that can be scored, got {len(good)}{reason}.")
    rows = rows_of(good)
    summary = {
        **{name: value for name, value in header.items() if name != "clips"},
        "model_revision": identity.model_revision,
        "note": identity.weights_note,
        "clips": len(good),
        "failed": failed,
        "rows": [asdict(row) for row in rows],
    }
    write_json(output / SUMMARY, summary)
    write_text(output / PAGE, page_html(summary, rows, good, {clip.name: clip.video for clip in clips}))
    return summary


def other_prompts(clips: Sequence[ProbedClip], clip: ProbedClip) -> list[str]:
    """Prompts of other clips, at most `OTHER_PROMPTS`, drawn by the name of the clip: the same for each model."""
    others = sorted({other.prompt for other in clips if other.prompt} - {clip.prompt})
    return random.Random(clip.name).sample(others, min(OTHER_PROMPTS, len(others)))


def _reward(settings: ScorerSettings, micro_batch: int, dtype: str | None = None) -> AIGCVQAReward:
    return AIGCVQAReward(
        **settings.what_is_built, device=settings.device, dtype=dtype or settings.dtype, micro_batch=micro_batch
    )
