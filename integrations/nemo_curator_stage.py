"""A stage for NeMo Curator that scores the clips of a video, and filters them by a score.

    pipeline.add_stage(AIGCVQAStage(model="path/or/hub-id", minimum=50.0, gpus=1.0))

Interface: `nemo_curator.stages.base.ProcessingStage` of NeMo Curator 1.4.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from nemo_curator.stages.base import ProcessingStage
from nemo_curator.stages.resources import Resources
from nemo_curator.tasks.video import Clip, VideoTask

from modeling_aigcvqa import ClipScorer, ScorerSettings
from modeling_aigcvqa.clip_scorer import ScorerIdentity

ERROR = "aigcvqa"  # key in `clip.errors`


@dataclass
class AIGCVQAStage(ProcessingStage[VideoTask, VideoTask]):
    """Scores each clip's encoded bytes (`clip.buffer`) against its prompt.

    What: `clip.aigcvqa` becomes a dict of scores by name; higher is better. A clip that cannot be scored gets no
    number: `clip.aigcvqa` is None, and `clip.errors["aigcvqa"]` says why. Other fields of a clip are not touched.

    Why filter: with `minimum`, clips below it, and those without a score, move to `video.filtered_clips`.

    Args:
        model, branches, dtype, batch_size: as of `ScorerSettings`.
        score: the score that `minimum` is compared with.
        minimum: least score of a clip that is kept; None keeps all.
        on_failed: what happens with a clip without a score if there is a minimum: "filter" or "keep".
        caption: the key of `window.caption` that holds the prompt; None takes the only one. Not needed for a model
            without the alignment branch.
        gpus: of each worker; 0 computes on CPUs.
    """

    model: str = "small"
    branches: tuple[str, ...] | None = None
    dtype: str | None = None
    batch_size: int = 1
    score: str = "quality_score"
    minimum: float | None = None
    on_failed: Literal["filter", "keep"] = "filter"
    caption: str | None = None
    gpus: float = 0.0
    name: str = "aigcvqa"
    scorer: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.resources = Resources(cpus=1.0, gpus=self.gpus)
        self.settings = ScorerSettings(
            model=self.model,
            branches=self.branches,
            dtype=self.dtype,
            batch_size=self.batch_size,
            device="auto" if self.gpus else "cpu",
        )

    def inputs(self) -> tuple[list[str], list[str]]:
        return ["data"], ["clips"]

    def outputs(self) -> tuple[list[str], list[str]]:
        return ["data"], ["clips"]

    def setup_on_node(self, node_info: Any = None, worker_metadata: Any = None) -> None:
        """Fetch the weights, once per node."""
        ScorerIdentity.of(self.settings)

    def setup(self, worker_metadata: Any = None) -> None:
        """Load the weights, once per worker."""
        self.scorer = ClipScorer(self.settings)

    def process(self, task: VideoTask) -> VideoTask:
        """Score and filter the clips of a video."""
        video = task.data
        if not video.clips:
            return task
        results = self.scorer(
            {
                "video": [clip.buffer or b"" for clip in video.clips],
                "prompt": [_prompt(clip, self.caption) for clip in video.clips],
            }
        )
        kept = []
        for number, clip in enumerate(video.clips):
            error = results["error"][number]
            names = [name for name in results if name.endswith("_score") and results[name][number] is not None]
            clip.aigcvqa = None if error else {name: results[name][number] for name in names}
            if error:
                clip.errors[ERROR] = error
            (kept if self._is_kept(clip) else video.filtered_clips).append(clip)
        video.clips = kept
        return task

    def _is_kept(self, clip: Clip) -> bool:
        if self.minimum is None:
            return True
        if clip.aigcvqa is None:
            return self.on_failed == "keep"
        if self.score not in clip.aigcvqa:
            raise ValueError(f"score={self.score!r}: the model gives {sorted(clip.aigcvqa)}.")
        return clip.aigcvqa[self.score] >= self.minimum


def _prompt(clip: Clip, key: str | None) -> str | None:
    """The caption of the first window of a clip that has one."""
    for window in clip.windows:
        captions = window.caption
        if key is None and len(captions) > 1:
            raise ValueError(f"clips have captions of {sorted(captions)}; name one of them with caption=.")
        if text := captions.get(key) if key is not None else next(iter(captions.values()), None):
            return text
    return None
