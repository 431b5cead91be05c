"""Make the classes known to transformers' Auto classes and `pipeline`, without importing transformers too early.

transformers and torch take seconds to import, and a command line should answer a wrong argument at once. So the classes
are registered when transformers has been imported, and not before.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

TASK = "video-quality-assessment"
PACKAGE = __name__.rpartition(".")[0]


def register_with_transformers() -> None:
    """Register the classes now if transformers is imported, otherwise as soon as it is."""
    if "transformers" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _RegistersAfterImports())


class _RegistersAfterImports(MetaPathFinder):
    """Watches the imports of transformers and of this package, and registers after the one that loaded transformers.

    Modules of this package are watched because one of them may import transformers: registering needs them complete.
    """

    def __init__(self):
        self.depth = 0  # watched modules that are being imported, one inside the other

    def find_spec(self, name: str, path=None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "transformers" and not name.startswith(f"{PACKAGE}."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_then_register(module: ModuleType) -> None:
            self.depth += 1
            try:
                execute(module)
            finally:
                self.depth -= 1
            if self.depth == 0 and "transformers" in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                _register()

        spec.loader.exec_module = execute_then_register
        return spec


def _register() -> None:
    from transformers import AutoConfig, AutoModel, AutoProcessor, AutoVideoProcessor
    from transformers.pipelines import PIPELINE_REGISTRY

    from .common.choices import SHIPPED_FOLDER
    from .configuration_aigcvqa import AIGCVQAConfig
    from .modeling_aigcvqa import AIGCVQAModel
    from .pipeline_aigcvqa import AIGCVQAPipeline
    from .processing_aigcvqa import AIGCVQAProcessor
    from .video_processing_aigcvqa import AIGCVQAVideoProcessor

    AutoConfig.register("aigcvqa", AIGCVQAConfig, exist_ok=True)
    AutoModel.register(AIGCVQAConfig, AIGCVQAModel, exist_ok=True)
    AutoVideoProcessor.register(AIGCVQAConfig, AIGCVQAVideoProcessor, exist_ok=True)
    AutoProcessor.register(AIGCVQAConfig, AIGCVQAProcessor, exist_ok=True)
    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        default = {"model": (str(SHIPPED_FOLDER), "main")}  # used by `pipeline(TASK)` without a model
        PIPELINE_REGISTRY.register_pipeline(
            TASK, AIGCVQAPipeline, pt_model=AutoModel, default=default, type="multimodal"
        )
    # `save_pretrained` then also saves the code of these classes.
    AIGCVQAConfig.register_for_auto_class()
    AIGCVQAModel.register_for_auto_class("AutoModel")
    AIGCVQAVideoProcessor.register_for_auto_class("AutoVideoProcessor")
    AIGCVQAProcessor.register_for_auto_class("AutoProcessor")
