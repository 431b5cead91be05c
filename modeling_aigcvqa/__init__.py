"""AIGC-VQA: a no-reference metric for AI-generated video (Lu et al., CVPR Workshops 2024).

The import registers the classes with transformers' Auto classes and `pipeline`, so that saved folders load without
`trust_remote_code`.
"""

from transformers import AutoConfig, AutoModel, AutoProcessor, AutoVideoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from ._version import __version__
from .configuration_aigcvqa import (
    AIGCVQAAestheticConfig,
    AIGCVQAAlignmentConfig,
    AIGCVQAConfig,
    AIGCVQATechnicalConfig,
)
from .frames_aigcvqa import VideoReadError
from .loading import SHIPPED_FOLDER, load_model, load_pipeline
from .modeling_aigcvqa import AIGCVQAModel, AIGCVQAOutput
from .pipeline_aigcvqa import AIGCVQAPipeline
from .processing_aigcvqa import AIGCVQAProcessor
from .video_processing_aigcvqa import AIGCVQAVideoProcessor

TASK = "video-quality-assessment"

AutoConfig.register("aigcvqa", AIGCVQAConfig, exist_ok=True)
AutoModel.register(AIGCVQAConfig, AIGCVQAModel, exist_ok=True)
AutoVideoProcessor.register(AIGCVQAConfig, AIGCVQAVideoProcessor, exist_ok=True)
AutoProcessor.register(AIGCVQAConfig, AIGCVQAProcessor, exist_ok=True)
if TASK not in PIPELINE_REGISTRY.supported_tasks:
    default = {"model": (str(SHIPPED_FOLDER), "main")}  # used by `pipeline(TASK)` without a model
    PIPELINE_REGISTRY.register_pipeline(TASK, AIGCVQAPipeline, pt_model=AutoModel, default=default, type="multimodal")

# `save_pretrained` then also saves the code of these classes.
AIGCVQAConfig.register_for_auto_class()
AIGCVQAModel.register_for_auto_class("AutoModel")
AIGCVQAVideoProcessor.register_for_auto_class("AutoVideoProcessor")
AIGCVQAProcessor.register_for_auto_class("AutoProcessor")

__all__ = [
    "AIGCVQAAestheticConfig",
    "AIGCVQAAlignmentConfig",
    "AIGCVQAConfig",
    "AIGCVQAModel",
    "AIGCVQAOutput",
    "AIGCVQAPipeline",
    "AIGCVQAProcessor",
    "AIGCVQATechnicalConfig",
    "AIGCVQAVideoProcessor",
    "VideoReadError",
    "__version__",
    "load_model",
    "load_pipeline",
]
