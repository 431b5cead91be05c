"""What our baselines give on the weights and inputs of a reference folder, one file per published metric."""

from collections.abc import Callable
from typing import NamedTuple

from . import branches, umtscore, viclip


class Producer(NamedTuple):
    """What gives the arrays of a reference, the largest difference allowed of one, and the file of its recipe."""

    arrays: Callable
    limit_of: Callable[[str], float]
    recipe: str


# By the beginning of the names of references.
PRODUCERS = {
    "viclip": Producer(viclip.viclip, viclip.limit_of, "recipe_viclip.py"),
    "umtscore": Producer(umtscore.umtscore, umtscore.limit_of, "recipe_umtscore.py"),
    "dover": Producer(branches.dover, branches.limit_of, "recipe.py"),
    "imagereward": Producer(branches.imagereward, branches.limit_of, "recipe.py"),
}
