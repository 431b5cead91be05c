"""Configuration of AIGC-VQA: one sub-config per branch. Every size of the architecture is a field that is validated."""

from typing import Any, Literal

from huggingface_hub.dataclasses import as_validated_field, strict
from transformers import PreTrainedConfig

from .names_aigcvqa import BRANCHES
from .provenance_aigcvqa import Provenance

# The model inputs that each branch needs. The processor returns all of them.
BRANCH_INPUTS = {
    "technical": ("pixel_values_fragments",),
    "aesthetic": ("pixel_values_resized",),
    "alignment": ("pixel_values_resized", "input_ids", "attention_mask"),
}

Sizes = list[int] | tuple[int, ...]


@as_validated_field
def positive(value: float | None):
    if value is not None and not value > 0:
        raise ValueError(f"expected a number above 0 (got {value}).")


@as_validated_field
def not_negative(value: float):
    if not value >= 0:
        raise ValueError(f"expected a number of at least 0 (got {value}).")


@as_validated_field
def rate(value: float):
    if not 0 <= value < 1:
        raise ValueError(f"expected a rate in [0, 1) (got {value}).")


@as_validated_field
def positive_sizes(values: Sizes):
    if not values or min(values) < 1:
        raise ValueError(f"expected positive integers, at least one (got {values}).")


@as_validated_field
def odd_sizes(values: Sizes):
    if not values or any(value < 1 or value % 2 == 0 for value in values):
        raise ValueError(f"expected odd positive integers, so that a convolution keeps the size (got {values}).")


@as_validated_field
def sizes_3d(values: Sizes):
    if len(values) != 3 or min(values) < 1:
        raise ValueError(f"expected 3 positive integers, for time, height and width (got {values}).")


def check_length(config: PreTrainedConfig, field: str, like: str) -> None:
    """Raise ValueError unless the lists in `field` and in `like` have the same length."""
    values, length = getattr(config, field), len(getattr(config, like))
    if len(values) != length:
        raise ValueError(f"{field}={values}: expected {length} values, as many as in `{like}`.")


@strict
class AIGCVQATechnicalConfig(PreTrainedConfig):
    """Technical branch: Swin-T 3D with gated relative position bias on fragments (paper section 3.1, FAST-VQA).

    `score_scale` and `score_shift` turn the output of the head into the score of the branch:
    `score_scale * raw + score_shift`.
    """

    model_type = "aigcvqa_technical"
    base_config_key = "technical_config"

    patch_size: Sizes = sizes_3d(default=(2, 4, 4))
    embed_dim: int = positive(default=96)
    depths: Sizes = positive_sizes(default=(2, 2, 6, 2))
    num_heads: Sizes = positive_sizes(default=(3, 6, 12, 24))
    window_size: Sizes = sizes_3d(default=(8, 7, 7))
    fragment_bias: list[bool] | tuple[bool, ...] = (True, True, True, False)
    mlp_ratio: float | int = positive(default=4.0)
    drop_path_rate: float | int = rate(default=0.1)
    head_hidden_size: int = positive(default=64)
    head_dropout: float | int = rate(default=0.5)
    score_scale: float | int = 1.0
    score_shift: float | int = 0.0

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
    depths: Sizes = positive_sizes(default=(3, 3, 9, 3))
    hidden_sizes: Sizes = positive_sizes(default=(96, 192, 384, 768))
    temporal_kernel_sizes: Sizes = odd_sizes(default=(1, 3, 1))
    layer_scale_init_value: float = positive(default=1e-6)
    drop_path_rate: float | int = rate(default=0.0)
    head_hidden_size: int = positive(default=64)
    head_dropout: float | int = rate(default=0.5)
    score_scale: float | int = 1.0
    score_shift: float | int = 0.0

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

    image_size: int = positive(default=224)
    patch_size: int = positive(default=16)
    vision_hidden_size: int = positive(default=1024)
    vision_num_hidden_layers: int = positive(default=24)
    vision_num_attention_heads: int = positive(default=16)
    vision_mlp_ratio: float | int = positive(default=4.0)
    vision_layer_norm_eps: float = positive(default=1e-6)
    vision_drop_path_rate: float | int = rate(default=0.0)
    vocab_size: int = positive(default=30524)
    text_hidden_size: int = positive(default=768)
    text_num_hidden_layers: int = positive(default=12)
    text_num_attention_heads: int = positive(default=12)
    text_intermediate_size: int = positive(default=3072)
    text_dropout: float | int = rate(default=0.0)
    max_position_embeddings: int = positive(default=512)
    pad_token_id: int = 0
    adapter: Literal["st_adapter"] | None = "st_adapter"
    adapter_hidden_size: int = positive(default=384)
    adapter_kernel_size: Sizes = odd_sizes(default=(3, 3, 3))
    adapter_activation: str = "gelu"
    head_hidden_sizes: Sizes = positive_sizes(default=(1024, 128, 64, 16))
    head_dropouts: list[float] | tuple[float, ...] = (0.2, 0.2, 0.1, 0.0)
    score_scale: float | int = 1.0
    score_shift: float | int = 0.0

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


SUB_CONFIGS = {
    "technical_config": AIGCVQATechnicalConfig,
    "aesthetic_config": AIGCVQAAestheticConfig,
    "alignment_config": AIGCVQAAlignmentConfig,
}
CUSTOM_PIPELINES = {
    "video-quality-assessment": {
        "impl": "pipeline_aigcvqa.AIGCVQAPipeline",
        "pt": ["AutoModel"],
        "type": "multimodal",
    }
}


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
        provenance: where the weights come from, as the dict of a `Provenance`; None if nothing is known.
    """

    model_type = "aigcvqa"
    sub_configs_defaults = SUB_CONFIGS

    branches: list[str] | tuple[str, ...] = BRANCHES
    technical_config: dict | PreTrainedConfig | None = None
    aesthetic_config: dict | PreTrainedConfig | None = None
    alignment_config: dict | PreTrainedConfig | None = None
    alignment_num_frames: int | None = positive(default=None)
    plcc_loss_weight: float | int = not_negative(default=1.0)
    rank_loss_weight: float | int = not_negative(default=1.0)
    initializer_range: float = positive(default=0.02)
    mos_mean: float | int = 0.0
    mos_std: float | int = positive(default=1.0)
    provenance: dict | None = None

    def __post_init__(self, **kwargs):
        caveat = kwargs.pop("weights_note", None)  # older configs store the caveat here instead of in `provenance`
        if caveat and self.provenance is None:
            self.provenance = {"caveat": caveat}
        if self.provenance is not None:
            self.set_provenance(Provenance.from_dict(self.provenance))
        for name, config_class in SUB_CONFIGS.items():
            value = getattr(self, name)
            if value is None or isinstance(value, dict):
                setattr(self, name, _build(config_class, name, value or {}))
        # Saved in config.json, where `pipeline` looks for the code of its task.
        kwargs.setdefault("custom_pipelines", CUSTOM_PIPELINES)
        super().__post_init__(**kwargs)
        if not self.branches or not set(self.branches) <= set(BRANCHES):
            raise ValueError(f"branches={self.branches}: expected a non-empty subset of {list(BRANCHES)}.")
        self.branches = [branch for branch in BRANCHES if branch in self.branches]

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
    def inputs(self) -> list[str]:
        """Names of the model inputs that the built branches need."""
        return list(dict.fromkeys(name for branch in self.branches for name in BRANCH_INPUTS[branch]))

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

    @property
    def weights_note(self) -> str | None:
        """What users must know about the weights and the scale when they read the scores; None for nothing."""
        provenance = self.get_provenance()
        scale = None
        if any(run.labels for run in provenance.runs):
            scale = (
                f"Quality is on the scale of the training labels, whose mean is {self.mos_mean:.4g} and deviation "
                f"{self.mos_std:.4g}."
            )
        return " ".join(filter(None, (provenance.note(self.branches), scale))) or None

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


def _build(config_class: type, name: str, values: dict) -> PreTrainedConfig:
    """`config_class(**values)`. An unknown field is an error, because a mistyped field must not be ignored."""
    default = config_class()
    unknown = sorted(key for key in values if not hasattr(default, key))
    if unknown:
        known = sorted(config_class.__annotations__)
        raise ValueError(f"{name} has no field {unknown}; {config_class.__name__} knows {known}.")
    return config_class(**values)


__all__ = ["AIGCVQAAestheticConfig", "AIGCVQAAlignmentConfig", "AIGCVQAConfig", "AIGCVQATechnicalConfig"]
