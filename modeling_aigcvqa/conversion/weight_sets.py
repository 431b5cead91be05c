"""Named sets of published weights, and the cached folders that they are converted to on first use."""

import shutil
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import cached_assets_path, constants

from ..common.choices import CONVNEXT_FILE, DOVER_FILE, FAST_VQA_FILE, IMAGE_REWARD_FILE, WEIGHT_SETS
from .assemble import convert
from .formats import CONVNEXT, DOVER, FAST_VQA, IMAGE_REWARD, CheckpointError

VERSION = 1  # version of the converted folders; folders of other versions are not used
LICENSES = {
    FAST_VQA_FILE: FAST_VQA.license,
    CONVNEXT_FILE: CONVNEXT.license,
    DOVER_FILE: DOVER.license,
    IMAGE_REWARD_FILE: IMAGE_REWARD.license,
}


def converted_folder(name: str, say: Callable[[str], None] = print) -> Path:
    """The model folder of a weight set in the cache of huggingface_hub, downloaded and converted if it is missing.

    Raises:
        CheckpointError: if the network or the disk fails; names the remedy.
    """
    cache = constants.HF_ASSETS_CACHE
    folder = cached_assets_path("aigcvqa", namespace="converted", subfolder=f"{name}-{VERSION}", assets_dir=cache)
    if (folder / "config.json").exists():
        return folder
    say(f"The weights '{name}' are downloaded and converted once, into '{folder}'.")
    try:
        convert(WEIGHT_SETS[name], folder, licenses=LICENSES, say=say)
    except CheckpointError as error:
        raise CheckpointError(f"model {name!r}: {error}") from error
    except OSError as error:  # most likely a full disk
        free = shutil.disk_usage(folder.parent).free / 1e9
        raise CheckpointError(
            f"model {name!r} could not be written to '{folder}' ({error}; {free:.1f} GB are free there); make room, or "
            "set HF_HOME to another disk."
        ) from error
    return folder
