"""Configuration of AIGC-VQA: one sub-config a branch, every size of the architecture, every field checked by name."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .provenance_aigcvqa import Provenance

BRANCHES = ("technical", "aesthetic", "alignment")
# What each branch takes in; the processor gives all of it.
BRANCH_INPUTS = {
    "technical": ("pixel_values_fragments",),
    "aesthetic": ("pixel_values_resized",),
    "alignment": ("pixel_values_resized", "input_ids", "attention_mask"),
}


def _refuse(config: PreTrainedConfig, field: str, why: str) -> None:
    raise ValueError(f"{type(config).__name__}.{field}={getattr(config, field)!r}: {why}")


def _check_positive_ints(config: PreTrainedConfig, field: str, length: int | None = None) -> None:
    """Refuse `field` unless it is a list of positive integers, of `length` where one is given."""
    values = getattr(config, field)
    if length is not None and len(values) != length:
        _refuse(config, field, f"expected {length} values (got {len(values)}).")
    if not values or any(value < 1 for value in values):
        _refuse(config, field, "expected positive integers, at least one.")


def _check_positive(config: PreTrainedConfig, *fields: str) -> None:
    for field in fields:
        if not getattr(config, field) > 0:
            _refuse(config, field, "expected a number above 0.")


def _check_rates(config: PreTrainedConfig, *fields: str) -> None:
    for field in fields:
        if not 0 <= getattr(config, field) < 1:
            _refuse(config, field, "expected a rate in [0, 1).")


@strict
class AIGCVQATechnicalConfig(PreTrainedConfig):
    """Technical branch: Swin-T 3D with gated relative position bias on fragments (paper section 3.1, FAST-VQA).

    `score_scale` and `score_shift` map the head's raw map to the branch's score: `score_scale * raw + score_shift`.
    """

    model_type = "aigcvqa_technical"
    base_config_key = "technical_config"

    patch_size: list[int] | tuple[int, ...] = (2, 4, 4)
    embed_dim: int = 96
    depths: list[int] | tuple[int, ...] = (2, 2, 6, 2)
    num_heads: list[int] | tuple[int, ...] = (3, 6, 12, 24)
    window_size: list[int] | tuple[int, ...] = (8, 7, 7)
    fragment_bias: list[bool] | tuple[bool, ...] = (True, True, True, False)
    mlp_ratio: float | int = 4.0
    drop_path_rate: float | int = 0.1
    head_hidden_size: int = 64
    head_dropout: float | int = 0.5
    score_scale: float | int = 1.0
    score_shift: float | int = 0.0

    def validate_architecture(self):
        """Part of `@strict`: called once every field has its type."""
        _check_positive_ints(self, "patch_size", 3)
        _check_positive_ints(self, "window_size", 3)
        _check_positive_ints(self, "depths")
        _check_positive_ints(self, "num_heads", len(self.depths))
        if len(self.fragment_bias) != len(self.depths):
            _refuse(self, "fragment_bias", f"expected one value for each of the {len(self.depths)} stages in `depths`.")
        for stage, heads in enumerate(self.num_heads):
            if self.embed_dim * 2**stage % heads:
                _refuse(self, "num_heads", f"{heads} heads do not divide stage {stage}'s {self.embed_dim * 2**stage}.")
        _check_positive(self, "embed_dim", "mlp_ratio", "head_hidden_size")
        _check_rates(self, "drop_path_rate", "head_dropout")


@strict
class AIGCVQAAestheticConfig(PreTrainedConfig):
    """Aesthetic branch: ConvNeXt-T 3D on the resized video (paper section 3.1, DOVER).

    `temporal_kernel_sizes` are taken in turn by the blocks of every stage.
    """

    model_type = "aigcvqa_aesthetic"
    base_config_key = "aesthetic_config"

    patch_size: list[int] | tuple[int, ...] = (2, 4, 4)
    depths: list[int] | tuple[int, ...] = (3, 3, 9, 3)
    hidden_sizes: list[int] | tuple[int, ...] = (96, 192, 384, 768)
    temporal_kernel_sizes: list[int] | tuple[int, ...] = (1, 3, 1)
    layer_scale_init_value: float = 1e-6
    drop_path_rate: float | int = 0.0
    head_hidden_size: int = 64
    head_dropout: float | int = 0.5
    score_scale: float | int = 1.0
    score_shift: float | int = 0.0

    def validate_architecture(self):
        _check_positive_ints(self, "patch_size", 3)
        _check_positive_ints(self, "depths")
        _check_positive_ints(self, "hidden_sizes", len(self.depths))
        _check_positive_ints(self, "temporal_kernel_sizes")
        if any(size % 2 == 0 for size in self.temporal_kernel_sizes):
            _refuse(self, "temporal_kernel_sizes", "expected odd sizes, so that the number of frames stays.")
        _check_positive(self, "head_hidden_size", "layer_scale_init_value")
        _check_rates(self, "drop_path_rate", "head_dropout")


@strict
class AIGCVQAAlignmentConfig(PreTrainedConfig):
    """Alignment branch: BLIP (ViT-L/16 and an image-grounded BERT) with a spatial-temporal adapter (paper section 3.2).

    `adapter=None` leaves the adapter out: one text pass a frame, scores averaged (paper Table 5, "N/A").
    """

    model_type = "aigcvqa_alignment"
    base_config_key = "alignment_config"

    image_size: int = 224
    patch_size: int = 16
    vision_hidden_size: int = 1024
    vision_num_hidden_layers: int = 24
    vision_num_attention_heads: int = 16
    vision_mlp_ratio: float | int = 4.0
    vision_layer_norm_eps: float = 1e-6
    vision_drop_path_rate: float | int = 0.0
    vocab_size: int = 30524
    text_hidden_size: int = 768
    text_num_hidden_layers: int = 12
    text_num_attention_heads: int = 12
    text_intermediate_size: int = 3072
    text_dropout: float | int = 0.0
    max_position_embeddings: int = 512
    pad_token_id: int = 0
    adapter: str | None = "st_adapter"
    adapter_hidden_size: int = 384
    adapter_kernel_size: list[int] | tuple[int, ...] = (3, 3, 3)
    adapter_activation: str = "gelu"
    head_hidden_sizes: list[int] | tuple[int, ...] = (1024, 128, 64, 16)
    head_dropouts: list[float] | tuple[float, ...] = (0.2, 0.2, 0.1, 0.0)
    score_scale: float | int = 1.0
    score_shift: float | int = 0.0

    def validate_architecture(self):
        if self.adapter not in (None, "st_adapter"):
            _refuse(self, "adapter", "expected 'st_adapter' or None.")
        if self.image_size < self.patch_size or self.image_size % self.patch_size:
            _refuse(self, "image_size", f"expected a multiple of patch_size={self.patch_size}.")
        for part in ("vision", "text"):
            width, heads = getattr(self, f"{part}_hidden_size"), getattr(self, f"{part}_num_attention_heads")
            if heads < 1 or width < 1 or width % heads:
                _refuse(self, f"{part}_num_attention_heads", f"expected a divisor of {part}_hidden_size={width}.")
        _check_positive_ints(self, "adapter_kernel_size", 3)
        if any(size % 2 == 0 for size in self.adapter_kernel_size):
            _refuse(self, "adapter_kernel_size", "expected odd sizes, so that the token grid stays.")
        _check_positive_ints(self, "head_hidden_sizes")
        if len(self.head_dropouts) != len(self.head_hidden_sizes):
            _refuse(self, "head_dropouts", f"expected {len(self.head_hidden_sizes)} rates, as in `head_hidden_sizes`.")
        if any(not 0 <= rate < 1 for rate in self.head_dropouts):
            _refuse(self, "head_dropouts", "expected rates in [0, 1).")
        _check_positive(self, "vision_num_hidden_layers", "vision_mlp_ratio", "vision_layer_norm_eps", "vocab_size")
        _check_positive(self, "text_num_hidden_layers", "text_intermediate_size", "max_position_embeddings")
        _check_positive(self, "adapter_hidden_size", "patch_size")
        _check_rates(self, "vision_drop_path_rate", "text_dropout")


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
    """Configuration of `AIGCVQAModel`; the defaults are the paper's full-size model.

    Args:
        branches: the branches that are built, any non-empty subset of "technical", "aesthetic", "alignment"
            (paper Table 2). Kept in this order.
        technical_config, aesthetic_config, alignment_config: sub-configs, or dicts of their fields.
        alignment_num_frames: frames that the alignment branch sees, spread evenly over those given; None for all.
        plcc_loss_weight, rank_loss_weight: weights of eq. 6 and eq. 7 in the loss (paper: 1 and 1).
        initializer_range: standard deviation of the truncated normal that weights start from.
        mos_mean, mos_std: mean and standard deviation of the labels on whose scale the scores are. The losses see
            scores and labels in units of `mos_std`, so that eq. 7, whose margin is in points, weighs the same on any
            scale.
        provenance: where the weights come from, the dict of a `Provenance`; None where nothing is known.
    """

    model_type = "aigcvqa"
    sub_configs_defaults = SUB_CONFIGS

    branches: list[str] | tuple[str, ...] = BRANCHES
    technical_config: dict | PreTrainedConfig | None = None
    aesthetic_config: dict | PreTrainedConfig | None = None
    alignment_config: dict | PreTrainedConfig | None = None
    alignment_num_frames: int | None = None
    plcc_loss_weight: float | int = 1.0
    rank_loss_weight: float | int = 1.0
    initializer_range: float = 0.02
    mos_mean: float | int = 0.0
    mos_std: float | int = 1.0
    provenance: dict | None = None

    def __post_init__(self, **kwargs):
        caveat = kwargs.pop("weights_note", None)  # how configs said it before there was `provenance`
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
        if isinstance(self.branches, tuple | list):  # a wrong type is refused by @strict, with the field's name
            unknown = [branch for branch in self.branches if branch not in BRANCHES]
            if unknown or not self.branches:
                _refuse(self, "branches", f"expected a non-empty subset of {list(BRANCHES)}.")
            self.branches = [branch for branch in BRANCHES if branch in self.branches]

    def validate_numbers(self):
        for field in ("plcc_loss_weight", "rank_loss_weight"):
            if getattr(self, field) < 0:
                _refuse(self, field, "expected a weight of at least 0.")
        _check_positive(self, "initializer_range", "mos_std")
        if self.alignment_num_frames is not None:
            _check_positive(self, "alignment_num_frames")

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
        """The names of the model's inputs that its branches take."""
        return list(dict.fromkeys(name for branch in self.branches for name in BRANCH_INPUTS[branch]))

    def rescale(self, mean: float, std: float) -> None:
        """Move the scores to the scale of labels with another mean and deviation.

        Their sum keeps its place in deviations; every branch carries an equal part of the mean.
        """
        ratio = std / self.mos_std
        for part in self.parts.values():
            part.score_scale *= ratio
            part.score_shift = (part.score_shift - self.mos_mean / len(self.parts)) * ratio + mean / len(self.parts)
        self.mos_mean, self.mos_std = mean, std

    @property
    def weights_note(self) -> str | None:
        """What is to be said beside the scores: of the weights, and of the scale; None where there is nothing."""
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
        """The small preset: every part of the architecture in 4 M parameters, for tests and the shipped model.

        Views of 112 x 112, coarser patches and two stages a backbone, still maps of T/2 x 7 x 7. It starts from wider
        random weights and larger layer scales than the full model, which starts from trained ones.
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
    """`config_class(**values)`, refusing names that it does not have: a mistyped field must not be ignored."""
    default = config_class()
    unknown = sorted(key for key in values if not hasattr(default, key))
    if unknown:
        known = sorted(config_class.__annotations__)
        raise ValueError(f"{name} has no field {unknown}; {config_class.__name__} knows {known}.")
    return config_class(**values)


__all__ = ["AIGCVQAAestheticConfig", "AIGCVQAAlignmentConfig", "AIGCVQAConfig", "AIGCVQATechnicalConfig"]
