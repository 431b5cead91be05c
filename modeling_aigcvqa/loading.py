"""Load a model with its processor for scoring, from the installed package's own code: nothing is executed from folders.

Not shipped by `save_pretrained`.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging as transformers_logging

from .configuration_aigcvqa import AIGCVQAConfig
from .modeling_aigcvqa import AIGCVQAModel
from .pipeline_aigcvqa import AIGCVQAPipeline
from .presets import default_processor
from .processing_aigcvqa import AIGCVQAProcessor

SHIPPED = "small"
SHIPPED_FOLDER = Path(__file__).parent / "assets" / SHIPPED
logger = transformers_logging.get_logger(__name__)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_pipeline(
    model: str = SHIPPED,
    branches: list[str] | None = None,
    device: str = "auto",
    dtype: str | None = None,
    alignment_num_frames: int | None = None,
) -> AIGCVQAPipeline:
    """A pipeline that scores with `model`.

    Args:
        model: folder or Hub id of a model, or "small" for the one inside the package.
        branches: the branches to build, a subset of the model's; None for all.
        device: "cpu", "cuda", ...; "auto" for a GPU where there is one.
        dtype: "float32", "bfloat16", "float16"; "auto" for what `fastest_dtype` says; None for that of the weights.
        alignment_num_frames: frames that the alignment branch sees, spread evenly over those of the other branches: its
            time is in proportion to them; None for the model's own number.

    Raises:
        ValueError: for a folder that holds no AIGC-VQA model, a branch that the model lacks, an unknown dtype.
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
        _warn_of_emulation(loaded.dtype, device)
    return AIGCVQAPipeline(model=loaded.eval(), processor=processor, device=device)


def load_model(
    model: str, branches: list[str] | None = None, alignment_num_frames: int | None = None
) -> tuple[AIGCVQAModel, AIGCVQAProcessor]:
    """The model and its processor, in the dtype of the weights; arguments and errors as of `load_pipeline`."""
    changes = {"branches": branches, "alignment_num_frames": alignment_num_frames}
    changes = {name: value for name, value in changes.items() if value is not None}
    return _shipped(changes) if model == SHIPPED else _load(model, changes)


def fastest_dtype(device: torch.device) -> tuple[str, str]:
    """bfloat16 where this device computes faster in it, else float32; and the reason.

    Decided by a matrix product timed in both: a processor may accept bfloat16 and emulate it. Scores in bfloat16 differ
    from float32's by about a hundredth of their spread (README, Speed).
    """
    ratio = _time_against_float32(torch.bfloat16, device)
    chosen = "bfloat16" if ratio < 0.75 else "float32"
    return chosen, f"a matrix product in bfloat16 takes {ratio:.2g} times as long as in float32 on this {device.type}."


def _time_against_float32(dtype: torch.dtype, device: torch.device) -> float:
    """Time of a matrix product in `dtype` over that in float32."""
    seconds = {}
    size = 512 if device.type == "cpu" else 4096  # long enough to time; short where the dtype is emulated
    for kind in (torch.float32, dtype):
        left, right = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        times = []
        for _ in range(5):
            start = time.perf_counter()
            (left @ right.mT).sum().item()  # as a linear layer has it
            times.append(time.perf_counter() - start)
            if len(times) > 1 and times[-1] > 10 * seconds.get(torch.float32, times[-1]):  # the first one sets up
                break  # emulated
        seconds[kind] = min(times)
    return seconds[dtype] / seconds[torch.float32]


def _warn_of_emulation(dtype: torch.dtype, device: torch.device) -> None:
    """A model can be stored, or asked for, in a dtype that this processor computes many times slower."""
    ratio = 1.0 if dtype == torch.float32 else _time_against_float32(dtype, device)
    if ratio > 2:
        name = str(dtype).removeprefix("torch.")
        logger.warning(
            f"dtype {name}: a matrix product takes {ratio:.2g} times as long as in float32 on this {device.type}; "
            "dtype 'float32' or 'auto' is faster."
        )


def _shipped(changes: dict) -> tuple[AIGCVQAModel, AIGCVQAProcessor]:
    """The model inside the package: stored in bfloat16 to be small, computed in float32 on any machine."""
    config = _load_config(SHIPPED_FOLDER, changes, SHIPPED)
    with _quiet():
        model = AIGCVQAModel.from_pretrained(SHIPPED_FOLDER, config=config, dtype=torch.float32)
    return model, default_processor(config)


def _load(model: str, changes: dict) -> tuple[AIGCVQAModel, AIGCVQAProcessor]:
    if Path(model).exists():
        _check_folder(Path(model))
    config = _load_config(model, changes, model)
    with _quiet():
        loaded, info = AIGCVQAModel.from_pretrained(model, config=config, output_loading_info=True)
    if info["missing_keys"]:
        raise ValueError(f"'{model}' lacks the weights {sorted(info['missing_keys'])[:3]}; export or convert it again.")
    processor = AIGCVQAProcessor.from_pretrained(model)
    processor.requires_prompt = "alignment" in config.branches
    return loaded, processor


@contextmanager
def _quiet() -> Iterator[None]:
    """No loading report and no progress bar: weights of branches left out are no cause for a warning."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()


def _check_folder(folder: Path) -> None:
    """Refuse what is no model before transformers does, with a message that says what to pass instead."""
    remedy = f"pass a folder written by save_pretrained, a Hub id, or {SHIPPED!r}."
    if not folder.is_dir():
        raise ValueError(f"model '{folder}' is a file; {remedy}")
    config = folder / "config.json"
    if not config.exists():
        raise ValueError(f"the folder '{folder}' is no model: it has no config.json; {remedy}")
    try:
        model_type = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"'{config}' is not a JSON object ({error}); {remedy}") from error
    if model_type != "aigcvqa":
        raise ValueError(f"'{folder}' holds a model of type {model_type!r}, not 'aigcvqa'; {remedy}")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"'{folder}' has no weights (*.safetensors); {remedy}")


def _load_config(source: str | Path, changes: dict, model: str) -> AIGCVQAConfig:
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
