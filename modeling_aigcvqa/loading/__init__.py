"""Load a model and its processor for scoring: from a folder, the Hub, the package or published weights."""

from .dtypes import DTYPES, fastest_dtype
from .load import load_model, load_pipeline, load_processor, model_source

__all__ = ["DTYPES", "fastest_dtype", "load_model", "load_pipeline", "load_processor", "model_source"]
