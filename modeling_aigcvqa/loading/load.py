"""Load a model and its processor with the code of the installed package: code in the model folder is not executed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from ..common.choices import SHIPPED, SHIPPED_FOLDER, WEIGHT_SETS
from ..common.files import read_json
from ..configuration_aigcvqa import AIGCVQAConfig
from ..conversion import converted_folder
from ..modeling_aigcvqa import AIGCVQAModel
from ..pipeline_aigcvqa import AIGCVQAPipeline
from ..processing_aigcvqa import AIGCVQAProcessor
from .dtypes import DTYPES, fastest_dtype, warn_of_emulation

NAMES = (SHIPPED, *WEIGHT_SETS)
logger = logging.get_logger(__name__)


def load_pipeline(
    model: str = SHIPPED,
    branches: list[str] | None = None,
    device: str = "auto",
    dtype: str | None = None,
    alignment_num_frames: int | None = None,
) -> AIGCVQAPipeline:
    """Load a pipeline that scores with `model`.

    Args:
        model: "small" for the model inside the package; "free" or "dover" for published weights, which are downloaded
            and converted on first use; or a folder or Hub id.
        branches: the branches to build, a subset of those of the model; None for all.
        device: "cpu", "cuda", ...; "auto" for a GPU if there is one.
        dtype: "float32", "bfloat16", "float16"; "auto" for the choice of `fastest_dtype`; None for the dtype of the
            weights.
        alignment_num_frames: number of frames that the alignment branch sees, spread evenly over the frames of the
            other branches. The time of this branch is proportional to it. None for the number in the config.

    Raises:
        ValueError: for a folder without an AIGC-VQA model, a branch that the model does not have, an unknown dtype or
            published weights that cannot be downloaded.
    """
    if dtype not in (None, "auto", *DTYPES):
        raise ValueError(f"dtype={dtype!r}: expected one of {['auto', *DTYPES]}.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    chosen = dtype
    if dtype == "auto":
        chosen, reason = fastest_dtype(device)
        logger.warning(f"dtype {chosen}: {reason}")
    loaded, processor = load_model(model, branches, alignment_num_frames)
    if chosen is not None:
        loaded = loaded.to(DTYPES[chosen])
    if dtype != "auto" and device.type == "cpu":
        warn_of_emulation(loaded.dtype, device)
    return AIGCVQAPipeline(model=loaded.eval(), processor=processor, device=device)


def load_model(
    model: str = SHIPPED, branches: list[str] | None = None, alignment_num_frames: int | None = None
) -> tuple[AIGCVQAModel, AIGCVQAProcessor]:
    """Load a model, in the dtype of its weights, and its processor. Arguments and errors are as in `load_pipeline`."""
    changes = {"branches": branches, "alignment_num_frames": alignment_num_frames}
    changes = {name: value for name, value in changes.items() if value is not None}
    source = model_source(model)
    if Path(source).exists():
        _check_folder(Path(source))
    config = _load_config(source, changes, model)
    with _quiet():
        loaded, info = AIGCVQAModel.from_pretrained(source, config=config, output_loading_info=True)
    if info["missing_keys"]:
        raise ValueError(f"'{model}' lacks the weights {sorted(info['missing_keys'])[:3]}; export or convert it again.")
    processor = AIGCVQAProcessor.from_pretrained(source)
    processor.requires_prompt = "alignment" in config.branches
    return loaded, processor


def model_source(model: str) -> str:
    """The folder of a named model ("small", "free", "dover"); a folder or a Hub id is returned unchanged.

    Published weights are downloaded and converted if they are not in the cache.
    """
    if model == SHIPPED:
        return str(SHIPPED_FOLDER)
    return str(converted_folder(model, logger.warning)) if model in WEIGHT_SETS else str(model)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the loading report and the progress bar. The report would warn of the weights of branches left out."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _check_folder(folder: Path) -> None:
    """Refuse a folder without a model before transformers does, with a message that says what to pass instead."""
    remedy = f"pass a folder written by save_pretrained, a Hub id, or one of {list(NAMES)}."
    if not folder.is_dir():
        raise ValueError(f"model '{folder}' is a file; {remedy}")
    if not (folder / "config.json").exists():
        raise ValueError(f"the folder '{folder}' is not a model: it has no config.json; {remedy}")
    config = read_json(folder / "config.json")
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != "aigcvqa":
        raise ValueError(f"'{folder}' holds a model of type {found!r}, not 'aigcvqa'; {remedy}")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"'{folder}' has no weights (*.safetensors); {remedy}")


def _load_config(source: str, changes: dict, model: str) -> AIGCVQAConfig:
    """The config of the model with `changes` to branches or number of alignment frames."""
    try:
        config = AIGCVQAConfig.from_pretrained(source)
        changed = AIGCVQAConfig(**{**config.to_dict(), **changes}) if changes else config
    except StrictDataclassError as error:  # not a ValueError; its message has several lines
        raise ValueError(f"model '{model}': {' '.join(str(error).split())}") from error
    missing = [branch for branch in changed.branches if branch not in config.branches]
    if missing:
        raise ValueError(f"model '{model}' has no branch {missing}; it has {config.branches}.")
    if "alignment_num_frames" in changes and "alignment" not in changed.branches:
        raise ValueError(
            f"alignment_num_frames={changes['alignment_num_frames']}: no alignment branch is built (of '{model}', "
            f"{changed.branches}); leave the option out."
        )
    return changed
