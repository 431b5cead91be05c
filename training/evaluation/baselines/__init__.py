"""Published metrics for `training.evaluate --baseline`.

| name | weights (`--model` or `--weights`) | score |
| --- | --- | --- |
| `fast_vqa` | converted folder with a technical branch | technical score with FAST-VQA's sampling |
| `dover` | folder converted from DOVER | DOVER's fusion of both branches with its sigmoid and its sampling |
| `image_reward` | converted folder with an alignment branch | score of a frame without the adapter, 16-frame mean |
| `blip` | folder or Hub id of a BlipForImageTextRetrieval | probability that frame and prompt match, 16-frame mean |
| `clipsim` | folder or Hub id of a CLIPModel | cosine between frame and prompt, 16-frame mean |
| `viclip` | the published file | cosine between clip and prompt |
| `umtscore` | the published file | logit that clip and prompt match |

The 16 frames are spread evenly over the clip. Where the published sampling is random, the middle of the range is used,
see `protocols_aigcvqa`.
"""

from ..scoring import Scorer
from .branches import BRANCHES_OF, branch_scorer
from .frame_models import FRAME_MODELS, frame_scorer
from .umtscore import umtscore_scorer
from .viclip import viclip_scorer

SCORERS_OF_FILES = {"viclip": viclip_scorer, "umtscore": umtscore_scorer}
BASELINES = (*BRANCHES_OF, *FRAME_MODELS, *SCORERS_OF_FILES)

__all__ = ["BASELINES", "baseline_scorer"]


def baseline_scorer(
    name: str, model: str, device: str = "auto", dtype: str | None = None, batch_size: int = 1, num_workers: int = 0
) -> Scorer:
    """Scorer of a baseline, with one score that has the name of the baseline.

    Args:
        name: one of `BASELINES`.
        model: folder, file or Hub id of the weights, see the table above.
        device, dtype, batch_size, num_workers: see `model_scorer`.

    Raises:
        ValueError: for an unknown name, or if the folder or file holds the weights of another model.
    """
    if name not in BASELINES:
        raise ValueError(f"--baseline {name!r}: expected one of {list(BASELINES)}.")
    if name in SCORERS_OF_FILES:
        return SCORERS_OF_FILES[name](model, device, dtype, batch_size, num_workers)
    build = branch_scorer if name in BRANCHES_OF else frame_scorer
    return build(name, model, device, dtype, batch_size, num_workers)
