"""AIGC-VQA: a no-reference metric for AI-generated video (Lu et al., CVPR Workshops 2024).

The import makes saved folders loadable without `trust_remote_code`: the classes are registered with transformers' Auto
classes and `pipeline`. It is quick, because each name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ._registration import TASK, register_with_transformers
from ._version import __version__

if TYPE_CHECKING:
    from .clip_scorer import ClipScorer, ScorerSettings
    from .configuration_aigcvqa import (
        AIGCVQAAestheticConfig,
        AIGCVQAAlignmentConfig,
        AIGCVQAConfig,
        AIGCVQATechnicalConfig,
    )
    from .frames_aigcvqa import VideoReadError
    from .loading import load_model, load_pipeline
    from .modeling_aigcvqa import AIGCVQAModel, AIGCVQAOutput
    from .pipeline_aigcvqa import AIGCVQAPipeline
    from .processing_aigcvqa import AIGCVQAProcessor
    from .reward import AIGCVQAReward
    from .video_processing_aigcvqa import AIGCVQAVideoProcessor

_MODULES = {
    "clip_scorer": ("ClipScorer", "ScorerSettings"),
    "configuration_aigcvqa": (
        "AIGCVQAAestheticConfig",
        "AIGCVQAAlignmentConfig",
        "AIGCVQAConfig",
        "AIGCVQATechnicalConfig",
    ),
    "frames_aigcvqa": ("VideoReadError",),
    "loading": ("load_model", "load_pipeline"),
    "modeling_aigcvqa": ("AIGCVQAModel", "AIGCVQAOutput"),
    "pipeline_aigcvqa": ("AIGCVQAPipeline",),
    "processing_aigcvqa": ("AIGCVQAProcessor",),
    "reward": ("AIGCVQAReward",),
    "video_processing_aigcvqa": ("AIGCVQAVideoProcessor",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "TASK",
    "AIGCVQAAestheticConfig",
    "AIGCVQAAlignmentConfig",
    "AIGCVQAConfig",
    "AIGCVQAModel",
    "AIGCVQAOutput",
    "AIGCVQAPipeline",
    "AIGCVQAProcessor",
    "AIGCVQAReward",
    "AIGCVQATechnicalConfig",
    "AIGCVQAVideoProcessor",
    "ClipScorer",
    "ScorerSettings",
    "VideoReadError",
    "__version__",
    "load_model",
    "load_pipeline",
]

register_with_transformers()


def __getattr__(name: str) -> Any:
    """Import a name of the package when it is first used (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
