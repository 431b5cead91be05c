"""Configuration of AIGC-VQA: one sub-config per branch. Every size of the architecture is a field that is validated."""

import math
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from .config_fields_aigcvqa import (
    Sizes,
    check_length,
    check_names,
    finite,
    layer_count,
    layer_counts,
    not_negative,
    odd_sizes,
    positive,
    rate,
    size,
    size_list,
    sizes_3d,
    window,
)
from .names_aigcvqa import BRANCHES
from .provenance_aigcvqa import Provenance
from .saved_files_aigcvqa import clear_errors
from .scale_aigcvqa import about_scale, check_calibration, check_reference, on_scale

# The model inputs that each branch needs. The processor returns all of them.
BRANCH_INPUTS = {
    "technical": ("pixel_values_fragments",),
    "aesthetic": ("pixel_values_resized",),
    "alignment": ("pixel_values_resized", "input_ids", "attention_mask"),
}


@strict
class AIGCVQATechnicalConfig(PreTrainedConfig):
    """Technical branch: Swin-T 3D with gated relative position bias on fragments (paper section 3.1, FAST-VQA).

    `score_scale` and `score_shift` turn the output of the head into the score of the branch:
    `score_scale * raw + score_shift`.
    """

    model_type = "aigcvqa_technical"
    base_config_key = "technical_config"

    patch_size: Sizes = sizes_3d(default=(2, 4, 4))
    embed_dim: int = size(default=96)
    depths: Sizes = layer_counts(default=(2, 2, 6, 2))
    num_heads: Sizes = size_list(default=(3, 6, 12, 24))
    window_size: Sizes = window(default=(8, 7, 7))
    fragment_bias: list[bool] | tuple[bool, ...] = (True, True, True, False)
    mlp_ratio: float | int = positive(default=4.0)
    drop_path_rate: float | int = rate(default=0.1)
    head_hidden_size: int = size(default=64)
    head_dropout: float | int = rate(default=0.5)
    score_scale: float | int = finite(default=1.0)
    score_shift: float | int = finite(default=0.0)

    def validate_architecture(self):
        """`@strict` calls every `validate_*` method once all fields are set."""
        check_length(self, "num_heads", "depths")
        check_length(self, "fragment_bias", "depths")
        for stage, heads in enumerate(self.num_heads):
            dim = self.embed_dim * 2**stage
            if dim % heads:
                raise ValueError(
                    f"num_heads={self.num_heads}: {heads} does not divide the {dim} channels of its stage."
                )


@strict
class AIGCVQAAestheticConfig(PreTrainedConfig):
    """Aesthetic branch: ConvNeXt-T 3D on the resized video (paper section 3.1, DOVER).

    The blocks of a stage take the values of `temporal_kernel_sizes` in turn.
    """

    model_type = "aigcvqa_aesthetic"
    base_config_key = "aesthetic_config"

    patch_size: Sizes = sizes_3d(default=(2, 4, 4))
    depths: Sizes = layer_counts(default=(3, 3, 9, 3))
    hidden_sizes: Sizes = size_list(default=(96, 192, 384, 768))
    temporal_kernel_sizes: Sizes = odd_sizes(default=(1, 3, 1))
    layer_scale_init_value: float = positive(default=1e-6)
    drop_path_rate: float | int = rate(default=0.0)
    head_hidden_size: int = size(default=64)
    head_dropout: float | int = rate(default=0.5)
    score_scale: float | int = finite(default=1.0)
    score_shift: float | int = finite(default=0.0)

    def validate_architecture(self):
        check_length(self, "hidden_sizes", "depths")


@strict
class AIGCVQAAlignmentConfig(PreTrainedConfig):
    """Alignment branch: BLIP (ViT-L/16 and an image-grounded BERT) with a spatial-temporal adapter (paper section 3.2).

    `adapter=None` leaves the adapter out: the text encoder then runs once per frame and the scores are averaged
    (paper Table 5, "N/A").
    """

    model_type = "aigcvqa_alignment"
    base_config_key = "alignment_config"

    image_size: int = size(default=224)
    patch_size: int = size(default=16)
    vision_hidden_size: int = size(default=1024)
    vision_num_hidden_layers: int = layer_count(default=24)
    vision_num_attention_heads: int = size(default=16)
    vision_mlp_ratio: float | int = positive(default=4.0)
    vision_layer_norm_eps: float = positive(default=1e-6)
    vision_drop_path_rate: float | int = rate(default=0.0)
    vocab_size: int = size(default=30524)
    text_hidden_size: int = size(default=768)
    text_num_hidden_layers: int = layer_count(default=12)
    text_num_attention_heads: int = size(default=12)
    text_intermediate_size: int = size(default=3072)
    text_dropout: float | int = rate(default=0.0)
    max_position_embeddings: int = size(default=512)
    pad_token_id: int = 0
    adapter: Literal["st_adapter"] | None = "st_adapter"
    adapter_hidden_size: int = size(default=384)
    adapter_kernel_size: Sizes = odd_sizes(default=(3, 3, 3))
    adapter_activation: str = "gelu"
    head_hidden_sizes: Sizes = size_list(default=(1024, 128, 64, 16))
    head_dropouts: list[float] | tuple[float, ...] = (0.2, 0.2, 0.1, 0.0)
    score_scale: float | int = finite(default=1.0)
    score_shift: float | int = finite(default=0.0)

    def validate_architecture(self):
        check_length(self, "head_dropouts", "head_hidden_sizes")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size={self.image_size}: expected a multiple of patch_size={self.patch_size}.")
        for part in ("vision", "text"):
            width, heads = getattr(self, f"{part}_hidden_size"), getattr(self, f"{part}_num_attention_heads")
            if width % heads:
                raise ValueError(
                    f"{part}_num_attention_heads={heads}: expected a divisor of {part}_hidden_size={width}."
                )
        if len(self.adapter_kernel_size) != 3:
            raise ValueError(f"adapter_kernel_size={self.adapter_kernel_size}: expected time, height and width.")
        if any(not 0 <= dropout < 1 for dropout in self.head_dropouts):
            raise ValueError(f"head_dropouts={self.head_dropouts}: expected rates in [0, 1).")
        if self.adapter_activation not in ACT2FN:
            raise ValueError(f"adapter_activation={self.adapter_activation!r}: expected one of {sorted(ACT2FN)}.")
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"pad_token_id={self.pad_token_id}: expected one of the {self.vocab_size} tokens.")


SUB_CONFIGS = {
    "technical_config": AIGCVQATechnicalConfig,
    "aesthetic_config": AIGCVQAAestheticConfig,
    "alignment_config": AIGCVQAAlignmentConfig,
}
TASK = "video-quality-assessment"
HUB_TASK = "video-classification"  # the `pipeline_tag` of the model card: the Hub has none for quality, and prints this
TASK_ENTRY = {"impl": "pipeline_aigcvqa.AIGCVQAPipeline", "pt": ["AutoModel"], "type": "multimodal"}
DTYPES = ("float16", "bfloat16", "float32", "float64")


class Tasks(dict):
    """`custom_pipelines`: one task, which `pipeline(model=...)` takes without a name, with the Hub's name as an alias.

    With two entries `pipeline` would ask which task is meant.
    """

    def __init__(self):
        super().__init__({TASK: dict(TASK_ENTRY)})

    def __contains__(self, task: Any) -> bool:
        return task == HUB_TASK or super().__contains__(task)

    def __missing__(self, task: str) -> dict:
        if task != HUB_TASK:
            raise KeyError(task)
        return self[TASK]

    def __reduce__(self) -> tuple:
        return Tasks, ()


@strict
class AIGCVQAConfig(PreTrainedConfig):
    """Configuration of `AIGCVQAModel`. The defaults are the full-size model of the paper.

    Args:
        branches: the branches to build, any non-empty subset of "technical", "aesthetic", "alignment" (paper Table 2).
            They are kept in this order.
        technical_config, aesthetic_config, alignment_config: sub-configs, or dicts of their fields.
        alignment_num_frames: number of frames that the alignment branch sees, spread evenly over the given frames;
            None for all.
        plcc_loss_weight, rank_loss_weight: weights of eq. 6 and eq. 7 in the loss (paper: 1 and 1).
        initializer_range: standard deviation of the truncated normal distribution of initial weights.
        mos_mean, mos_std: mean and standard deviation of the training labels. The scores are on the scale of these
            labels. The losses divide scores and labels by `mos_std`, so that eq. 7, whose margin is in label units,
            has the same weight on every scale.
        interval: how far the mean opinion is from the quality score: `half_width` in units of the labels, `coverage`,
            the share of clips for which it holds, `clips`, the number of validation clips behind it, and `branches`,
            whose sum it is of. None if the scale of the scores is not that of opinions.
        reference: scores of reference clips, as of `make_reference`; percentiles are among them. None for none.
        calibration: a monotone curve from quality scores to the mean opinion scores of some clips, as
            `aigcvqa calibrate` fits it. None for none.
        provenance: where the weights come from, as the dict of a `Provenance`; None if nothing is known.
    """

    model_type = "aigcvqa"
    sub_configs_defaults = SUB_CONFIGS

    branches: list[str] | tuple[str, ...] = BRANCHES
    technical_config: dict | PreTrainedConfig | None = None
    aesthetic_config: dict | PreTrainedConfig | None = None
    alignment_config: dict | PreTrainedConfig | None = None
    alignment_num_frames: int | None = size(default=None)
    plcc_loss_weight: float | int = not_negative(default=1.0)
    rank_loss_weight: float | int = not_negative(default=1.0)
    initializer_range: float = positive(default=0.02)
    mos_mean: float | int = finite(default=0.0)
    mos_std: float | int = positive(default=1.0)
    interval: dict | None = None
    reference: dict | None = None
    calibration: dict | None = None
    provenance: dict | None = None

    def __post_init__(self, **kwargs):
        caveat = kwargs.pop("weights_note", None)  # older configs store the caveat here instead of in `provenance`
        if caveat and self.provenance is None:
            self.provenance = {"caveat": caveat}
        if self.provenance is not None:
            self.set_provenance(Provenance.from_dict(self.provenance))
        if self.interval is not None:
            check_interval(self.interval)
        if self.reference is not None:
            check_reference(self.reference)
        if self.calibration is not None:
            check_calibration(self.calibration)
        for name, config_class in SUB_CONFIGS.items():
            value = getattr(self, name)
            if value is None or isinstance(value, dict):
                setattr(self, name, _build(config_class, name, value or {}))
        check_names(type(self), kwargs, "the config")
        # Saved in config.json, where `pipeline` looks for the code of its task.
        super().__post_init__(**{**kwargs, "custom_pipelines": Tasks()})
        if not self.branches or not set(self.branches) <= set(BRANCHES):
            raise ValueError(f"branches={self.branches}: expected a non-empty subset of {list(BRANCHES)}.")
        self.branches = [branch for branch in BRANCHES if branch in self.branches]

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs) -> "AIGCVQAConfig":
        """As in the base class, but whatever is wrong with config.json is one clear error.

        Raises:
            SavedFileError: for a field with a wrong name, type or value; names the field.
        """
        folder = kwargs.get("name_or_path")  # AutoConfig passes it
        problem = f"config.json{f' of {str(folder)!r}' if folder else ''} cannot be used"
        with clear_errors(problem, "correct it, or save the model again."):
            if not isinstance(config_dict, dict):
                raise ValueError(f"expected an object (got {type(config_dict).__name__})")
            for values in (config_dict, *(config_dict.get(name) or {} for name in SUB_CONFIGS)):
                dtype = values.get("dtype") if isinstance(values, dict) else None
                if isinstance(dtype, str) and dtype not in DTYPES:
                    raise ValueError(f"dtype={dtype!r}: expected one of {list(DTYPES)}")
            return super().from_dict(config_dict, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        output = super().to_dict()
        return output | {"custom_pipelines": {TASK: dict(TASK_ENTRY), HUB_TASK: dict(TASK_ENTRY)}}

    def get_provenance(self) -> Provenance:
        """Where the weights come from."""
        return Provenance.from_dict(self.provenance)

    def set_provenance(self, provenance: Provenance) -> None:
        self.provenance = provenance.to_dict() if provenance.known else None

    @property
    def parts(self) -> dict[str, PreTrainedConfig]:
        """The sub-config of every branch that is built."""
        return {branch: getattr(self, f"{branch}_config") for branch in self.branches}

    @property
    def quality_of(self) -> str | None:
        """The branches whose scores quality is the sum of, if some are not built: "technical", "technical + aesthetic".

        None if all are built.
        """
        return " + ".join(self.branches) if len(self.branches) < len(BRANCHES) else None

    @property
    def quality_interval(self) -> dict | None:
        """The interval of opinions, if it is of the branches that are built."""
        return self.interval if self.interval and self._is_of_this_sum(self.interval) else None

    @property
    def inputs(self) -> list[str]:
        """Names of the model inputs that the built branches need."""
        return list(dict.fromkeys(name for branch in self.branches for name in BRANCH_INPUTS[branch]))

    @property
    def about_scale(self) -> str | None:
        """What percentiles and the estimated MOS are of; None if the model has neither."""
        calibration = self.calibration if self.calibration and self._is_of_this_sum(self.calibration) else None
        return about_scale(self.reference, calibration) or None

    def on_scale(self, scores: dict[str, Any]) -> dict[str, float]:
        """The percentiles of a clip's scores among the reference, and its estimated MOS; what is not known is left out.

        Args:
            scores: by name.
        """
        return on_scale(scores, self.reference, self.calibration, self.branches)

    def check_scale(self, wanted: bool = True) -> None:
        """Raise ValueError if a scale is wanted and the model has none; says what to do."""
        if wanted and self.about_scale is None:
            raise ValueError(
                "this model has no scale: no reference scores and no calibration. `aigcvqa calibrate --manifest CLIPS "
                "--model MODEL --output FOLDER` writes one that has."
            )

    def forget_scale(self) -> None:
        """Drop what was measured of the scores, because they change."""
        self.interval = self.reference = self.calibration = None

    def forget_scale_of_alignment(self) -> None:
        """Drop what was measured of the alignment score and of the sum, because the branch sees other frames."""
        if self.reference is not None:
            parts = ("technical_score", "aesthetic_score")
            kept = {name: values for name, values in self.reference["quantiles"].items() if name in parts}
            self.reference = {**self.reference, "quantiles": kept} if kept else None
        self.interval = self.calibration = None

    def _is_of_this_sum(self, measured: dict) -> bool:
        return measured["branches"] == list(self.branches)

    def rescale(self, mean: float, std: float) -> None:
        """Move the scores to the scale of labels with another mean and standard deviation.

        The quality score keeps its distance from the mean in standard deviations. Every branch gets an equal part of
        the mean.
        """
        ratio = std / self.mos_std
        for part in self.parts.values():
            part.score_scale *= ratio
            part.score_shift = (part.score_shift - self.mos_mean / len(self.parts)) * ratio + mean / len(self.parts)
        self.mos_mean, self.mos_std = mean, std
        self.forget_scale()

    @property
    def weights_note(self) -> str | None:
        """What users must know about the weights, parts and scale when they read the scores; None for nothing."""
        provenance = self.get_provenance()
        scale = parts = None
        if self.quality_of:
            left_out = " and ".join(branch for branch in BRANCHES if branch not in self.branches)
            parts = f"Quality is {self.quality_of} alone, without {left_out}."
        if any(run.labels for run in provenance.runs):
            scale = (
                f"Quality is on the scale of the training labels, whose mean is {self.mos_mean:.4g} and deviation "
                f"{self.mos_std:.4g}."
            )
        return " ".join(filter(None, (provenance.note(self.branches), parts, scale))) or None

    @classmethod
    def small(cls, **overrides: Any) -> "AIGCVQAConfig":
        """The small preset: every part of the architecture with 4 M parameters, for tests and the shipped model.

        It has views of 112 x 112, coarser patches and two stages per backbone; the maps are still T/2 x 7 x 7. Initial
        weights and layer scales are larger than in the full model, which starts from pre-trained weights.
        """
        return cls(
            **{
                "technical_config": {
                    "patch_size": [2, 8, 8],
                    "embed_dim": 64,
                    "depths": [2, 2],
                    "num_heads": [2, 4],
                    "window_size": [4, 7, 7],
                    "fragment_bias": [True, False],
                    "drop_path_rate": 0.0,
                    "head_dropout": 0.1,
                },
                "aesthetic_config": {
                    "patch_size": [2, 8, 8],
                    "hidden_sizes": [48, 96],
                    "depths": [2, 3],
                    "temporal_kernel_sizes": [1, 3],
                    "layer_scale_init_value": 0.1,
                    "head_dropout": 0.1,
                },
                "alignment_config": {
                    "image_size": 112,
                    "patch_size": 16,
                    "vision_hidden_size": 128,
                    "vision_num_hidden_layers": 4,
                    "vision_num_attention_heads": 4,
                    "text_hidden_size": 64,
                    "text_num_hidden_layers": 3,
                    "text_num_attention_heads": 4,
                    "text_intermediate_size": 256,
                    "max_position_embeddings": 256,
                    "adapter_hidden_size": 64,
                    "head_hidden_sizes": [64, 16],
                    "head_dropouts": [0.1, 0.0],
                },
                "alignment_num_frames": 4,
                "initializer_range": 0.06,
                **overrides,
            }
        )


def check_interval(interval: dict) -> None:
    """Raise ValueError unless it is the interval of a config; names the value."""
    numbers = [interval.get(name) for name in ("half_width", "coverage", "clips")]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
        raise ValueError(f"interval={interval}: expected numbers for half_width, coverage and clips.")
    if interval["half_width"] < 0 or not 0 < interval["coverage"] < 1:
        raise ValueError(f"interval={interval}: expected half_width >= 0 and a coverage between 0 and 1.")
    if not isinstance(interval.get("branches"), list):
        raise ValueError(f"interval={interval}: expected the list of branches whose sum it is of.")


def _build(config_class: type, name: str, values: dict) -> PreTrainedConfig:
    """`config_class(**values)`, without fields that it does not know."""
    check_names(config_class, values, name)
    return config_class(**values)


__all__ = ["AIGCVQAAestheticConfig", "AIGCVQAAlignmentConfig", "AIGCVQAConfig", "AIGCVQATechnicalConfig"]
