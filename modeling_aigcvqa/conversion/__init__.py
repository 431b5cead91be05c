"""Convert published checkpoints to a model folder: fetch them, recognise them, account for every key."""

from .assemble import convert
from .formats import CheckpointError
from .merge import merge
from .weight_sets import converted_folder

__all__ = ["CheckpointError", "convert", "converted_folder", "merge"]
