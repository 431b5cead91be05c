"""Published checkpoints become a model folder: fetched, recognised by their content, every key accounted for."""

from .assemble import convert
from .formats import CheckpointError
from .merge import merge
from .weight_sets import WEIGHT_SETS, converted_folder

__all__ = ["WEIGHT_SETS", "CheckpointError", "convert", "converted_folder", "merge"]
