"""Load a model and its processor with the code of the installed package: code in the model folder is not executed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from ..common.choices import SHIPPED, SHIPPED_FOLDER, WEIGHT_SETS
from ..common.files import read_json
from ..configuration_aigcvqa import AIGCVQAConfig
from ..conversion import converted_folder
from ..modeling_aigcvqa import AIGCVQAModel
from ..pipeline_aigcvqa import AIGCVQAPipeline
from ..processing_aigcvqa import AIGCVQAProcessor
from ..saved_files_aigcvqa import SavedFileError, check_finite, check_fit, one_line
from .devices import chosen_device
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
        ValueError: for a folder without a usable AIGC-VQA model, a branch that the model does not have, an unknown
            dtype, a device that is not here or published weights that cannot be downloaded.
    """
    if dtype not in (None, "auto", *DTYPES):
        raise ValueError(f"dtype={dtype!r}: expected one of {['auto', *DTYPES]}.")
    device = chosen_device(device)
    chosen = dtype
    if dtype == "auto":
        chosen, reason = fastest_dtype(device)
        logger.warning(f"dtype {chosen}: {reason}")
    loaded, processor = load_model(model, branches, alignment_num_frames)
    if chosen is not None:
        loaded = loaded.to(DTYPES[chosen])
        check_finite(loaded, model, "choose another dtype.")  # float16 ends at 65504
    if dtype != "auto" and device.type == "cpu":
        warn_of_emulation(loaded.dtype, device)
    return AIGCVQAPipeline(model=loaded.eval(), processor=processor, device=device)


def load_model(
    model: str = SHIPPED, branches: list[str] | None = None, alignment_num_frames: int | None = None
) -> tuple[AIGCVQAModel, AIGCVQAProcessor]:
    """Load a model, in the dtype of its weights, and its processor. Arguments and errors are as in `load_pipeline`."""
    source, config = _checked_source(model, branches, alignment_num_frames)
    with _quiet():
        loaded = AIGCVQAModel.from_pretrained(source, config=config)
    return loaded, _processor(source, config, model)


def load_processor(
    model: str = SHIPPED, branches: list[str] | None = None, alignment_num_frames: int | None = None
) -> tuple[AIGCVQAConfig, AIGCVQAProcessor]:
    """The config and the processor of a model, without its weights. Arguments and errors are as in `load_pipeline`."""
    source, config = _checked_source(model, branches, alignment_num_frames)
    return config, _processor(source, config, model)


def _checked_source(
    model: str, branches: list[str] | None, alignment_num_frames: int | None
) -> tuple[str, AIGCVQAConfig]:
    """The folder or Hub id of a model, and its config with the changes."""
    changes = {"branches": branches, "alignment_num_frames": alignment_num_frames}
    changes = {name: value for name, value in changes.items() if value is not None}
    source = model_source(model)
    if Path(source).exists():
        _check_folder(Path(source))
    config = _load_config(source, changes, model)
    if Path(source).exists():
        _check_processor_files(Path(source))
    return source, config


def _processor(source: str, config: AIGCVQAConfig, model: str) -> AIGCVQAProcessor:
    with _quiet():
        processor = AIGCVQAProcessor.from_pretrained(source)
    check_fit(config, processor, model)
    processor.requires_prompt = "alignment" in config.branches
    return processor


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
    found = _read_object(folder / "config.json").get("model_type")
    if found != "aigcvqa":
        raise ValueError(f"'{folder}' holds a model of type {found!r}, not 'aigcvqa'; {remedy}")


def _check_processor_files(folder: Path) -> None:
    """Refuse a folder whose processor's files are missing or no JSON objects; what they hold is checked later."""
    if not (folder / "processor_config.json").exists():
        raise SavedFileError(f"'{folder}' has no processor_config.json; save the processor with the model.")
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.txt")):
        raise SavedFileError(f"'{folder}' has no tokenizer.json or vocab.txt; save the processor with the model.")
    for name in ("processor_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if (folder / name).exists():
            _read_object(folder / name)


def _read_object(path: Path) -> dict:
    """The content of a JSON file, which must be an object."""
    try:
        content = read_json(path)
    except RecursionError as error:
        raise SavedFileError(f"'{path}' is nested too deeply; save or download it again.") from error
    if not isinstance(content, dict):
        raise SavedFileError(f"'{path}': expected an object, got {type(content).__name__}; save or download it again.")
    return content


def _load_config(source: str, changes: dict, model: str) -> AIGCVQAConfig:
    """The config of the model with `changes` to branches or number of alignment frames."""
    try:
        config = AIGCVQAConfig.from_pretrained(source)
        changed = AIGCVQAConfig(**{**config.to_dict(), **changes}) if changes else config
    except (StrictDataclassError, SavedFileError, OSError) as error:
        raise ValueError(f"model '{model}': {one_line(error)}.") from error
    missing = [branch for branch in changed.branches if branch not in config.branches]
    if missing:
        raise ValueError(f"model '{model}' has no branch {missing}; it has {config.branches}.")
    if "alignment_num_frames" in changes and "alignment" not in changed.branches:
        raise ValueError(
            f"alignment_num_frames={changes['alignment_num_frames']}: no alignment branch is built (of '{model}', "
            f"{changed.branches}); leave the option out."
        )
    if changed.alignment_num_frames != config.alignment_num_frames:
        changed.forget_scale_of_alignment()
    return changed
