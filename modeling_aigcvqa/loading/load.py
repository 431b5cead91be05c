"""Load a model and its processor by the installed package's own code: nothing in a folder is executed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from ..common.files import read_json
from ..configuration_aigcvqa import AIGCVQAConfig
from ..conversion import WEIGHT_SETS, converted_folder
from ..modeling_aigcvqa import AIGCVQAModel
from ..pipeline_aigcvqa import AIGCVQAPipeline
from ..processing_aigcvqa import AIGCVQAProcessor
from .dtypes import DTYPES, fastest_dtype, warn_of_emulation

SHIPPED = "small"
SHIPPED_FOLDER = Path(__file__).parents[1] / "assets" / SHIPPED
NAMES = (SHIPPED, *WEIGHT_SETS)
logger = logging.get_logger(__name__)


def load_pipeline(
    model: str = SHIPPED,
    branches: list[str] | None = None,
    device: str = "auto",
    dtype: str | None = None,
    alignment_num_frames: int | None = None,
) -> AIGCVQAPipeline:
    """A pipeline that scores with `model`.

    Args:
        model: "small" for the model inside the package; "free" or "dover" for published weights, which are fetched and
            converted on first use; or a folder or Hub id.
        branches: the branches to build, a subset of the model's; None for all.
        device: "cpu", "cuda", ...; "auto" for a GPU where there is one.
        dtype: "float32", "bfloat16", "float16"; "auto" for what `fastest_dtype` says; None for that of the weights.
        alignment_num_frames: frames that the alignment branch sees, spread evenly over those of the other branches. Its
            time is in proportion to them. None for the model's own number.

    Raises:
        ValueError: for a folder that holds no AIGC-VQA model, a branch that the model lacks, an unknown dtype, or
            published weights that cannot be fetched.
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
    """The model and its processor, in the dtype of the weights; arguments and errors as in `load_pipeline`."""
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
    """The folder of a model that has a name ("small", "free", "dover"); any other folder or Hub id as it is.

    A set of published weights is fetched and converted where that was not done before.
    """
    if model == SHIPPED:
        return str(SHIPPED_FOLDER)
    return str(converted_folder(model, logger.warning)) if model in WEIGHT_SETS else str(model)


@contextmanager
def _quiet() -> Iterator[None]:
    """No loading report and no progress bar: weights of branches left out are no cause for a warning."""
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
    """Refuse what is no model before transformers does, with a message that says what to pass instead."""
    remedy = f"pass a folder written by save_pretrained, a Hub id, or one of {list(NAMES)}."
    if not folder.is_dir():
        raise ValueError(f"model '{folder}' is a file; {remedy}")
    if not (folder / "config.json").exists():
        raise ValueError(f"the folder '{folder}' is no model: it has no config.json; {remedy}")
    config = read_json(folder / "config.json")
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != "aigcvqa":
        raise ValueError(f"'{folder}' holds a model of type {found!r}, not 'aigcvqa'; {remedy}")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"'{folder}' has no weights (*.safetensors); {remedy}")


def _load_config(source: str, changes: dict, model: str) -> AIGCVQAConfig:
    """The model's config with other branches or another number of alignment frames."""
    try:
        config = AIGCVQAConfig.from_pretrained(source)
        changed = AIGCVQAConfig(**{**config.to_dict(), **changes}) if changes else config
    except StrictDataclassError as error:  # no ValueError; what was wrong is its cause
        raise ValueError(str(error.__cause__ or error)) from error
    missing = [branch for branch in changed.branches if branch not in config.branches]
    if missing:
        raise ValueError(f"model '{model}' has no branch {missing}; it has {config.branches}.")
    if "alignment_num_frames" in changes and "alignment" not in changed.branches:
        raise ValueError(
            f"alignment_num_frames={changes['alignment_num_frames']}: no alignment branch is built (of '{model}', "
            f"{changed.branches}); leave it out."
        )
    return changed
