"""The AIGC-VQA model: three branches, their heads and late fusion (Lu et al., CVPR Workshops 2024, figure 2)."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.utils import ModelOutput

from .alignment_aigcvqa import AlignmentBackbone, RewardHead
from .backbone_convnext3d import ConvNeXt3D, ConvNeXtBlock3D
from .backbone_swin3d import SwinTransformer3D, WindowAttention3D
from .configuration_aigcvqa import BRANCH_INPUTS, AIGCVQAConfig
from .loss_aigcvqa import quality_loss

# Imported so that the pipeline, and what the endpoint's handler needs, are saved with the model: `save_pretrained`
# copies the files that this file imports relatively, also if the model itself was loaded from such a copy.
from .pipeline_aigcvqa import AIGCVQAPipeline  # noqa: F401
from .protocols_aigcvqa import sample_frame_indices
from .requests_aigcvqa import RequestLimits  # noqa: F401
from .saved_files_aigcvqa import check_weights, clear_errors, stored_dtypes


@dataclass
class AIGCVQAOutput(ModelOutput):
    """Scores by name, all float32. Higher is better. The scores and maps of a branch that is not built are None.

    Args:
        loss: scalar; None without `mos`.
        quality_score: sum of the scores of the branches (B,).
        technical_score, aesthetic_score, alignment_score: scores of the branches (B,).
        technical_map, aesthetic_map: a score for every position (B, T/2, 7, 7); the mean of a map is the score.
    """

    loss: Tensor | None = None
    quality_score: Tensor | None = None
    technical_score: Tensor | None = None
    aesthetic_score: Tensor | None = None
    alignment_score: Tensor | None = None
    technical_map: Tensor | None = None
    aesthetic_map: Tensor | None = None


class VQAHead(nn.Module):
    """A score for every position: (B, T, H, W, C) -> (B, T, H, W).

    The two linear layers are stored as 1 x 1 x 1 convolutions, as in the published checkpoints (FAST-VQA, DOVER).
    """

    def __init__(self, in_features: int, hidden_size: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc_hid = nn.Conv3d(in_features, hidden_size, 1)
        self.fc_last = nn.Conv3d(hidden_size, 1, 1)
        self.act = nn.GELU()

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.fc_hid(self.dropout(features).permute(0, 4, 1, 2, 3))
        return self.fc_last(self.dropout(self.act(hidden)))[:, 0]


def _build(network: type[nn.Module], part: PreTrainedConfig) -> nn.Module:
    """Build a backbone from the fields of `part` that have the names of its arguments."""
    fields = type(part).__annotations__
    return network(**{name: getattr(part, name) for name in inspect.signature(network).parameters if name in fields})


def _in_float32(head: nn.Module, features: Tensor) -> Tensor:
    """The output of the head in float32, also under autocast: half precision would round scores to three digits."""
    with torch.autocast(features.device.type, enabled=False):
        return head(features.to(next(head.parameters()).dtype)).float()


class AIGCVQAPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation of weights."""

    config_class = AIGCVQAConfig
    base_model_prefix = ""
    main_input_name = "pixel_values_resized"
    input_modalities = ("video", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["SwinTransformerBlock3D", "ConvNeXtBlock3D", "VisionBlock", "BlipTextLayer", "STAdapter"]
    _keep_in_fp32_modules_strict = ["technical_head", "aesthetic_head", "alignment_head"]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path | None, *args: Any, **kwargs: Any) -> Any:
        """As in the base class, but weights that are not those of the model are refused, and pickles are not read.

        Raises:
            SavedFileError: for damaged files, wrong fields in config.json, tensors that are missing, unknown, NaN,
                infinite or of another shape; names the folder and the tensor or field. With
                `ignore_mismatched_sizes=True`, tensors may be missing or have another shape.
        """
        name = pretrained_model_name_or_path
        with_info, lenient = (kwargs.pop(key, False) for key in ("output_loading_info", "ignore_mismatched_sizes"))
        if kwargs.get("use_safetensors") is None:
            kwargs["use_safetensors"] = True
        folder = Path(name or "", kwargs.get("subfolder") or "")
        dtypes = stored_dtypes(folder) if name and folder.is_dir() and kwargs["use_safetensors"] else {}
        with clear_errors(f"the model '{name}' cannot be loaded"):
            model, info = super().from_pretrained(
                name, *args, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
            )
        found = {**info, "missing_keys": set(), "mismatched_keys": set()} if lenient else info
        check_weights(model, found, dtypes, str(name))
        return (model, info) if with_info else model

    def _init_weights(self, module: nn.Module) -> None:
        """Truncated normal weights with the standard deviation `init_std` of the module or that of the config.

        Each case sets only parameters that the module itself owns, because transformers skips modules of remote code
        that own none.
        """
        std = getattr(module, "init_std", self.config.initializer_range)
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            init.trunc_normal_(module.weight, std=std) if std else init.zeros_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, WindowAttention3D):
            init.trunc_normal_(module.relative_position_bias_table, std=std)
            if module.fragment_position_bias_table is not None:
                init.trunc_normal_(module.fragment_position_bias_table, std=std)
        elif isinstance(module, ConvNeXtBlock3D):
            init.constant_(module.gamma, module.layer_scale)
        elif isinstance(module, VisionTransformer):
            init.trunc_normal_(module.pos_embed, std=std)
            init.trunc_normal_(module.cls_token, std=std)


class AIGCVQAModel(AIGCVQAPreTrainedModel):
    """Scores a generated video and its prompt with the branches in `config.branches`; the sum is the quality score."""

    def __init__(self, config: AIGCVQAConfig):
        super().__init__(config)
        if "technical" in config.branches:
            part = config.technical_config
            self.technical_backbone = _build(SwinTransformer3D, part)
            self.technical_head = VQAHead(
                self.technical_backbone.num_features, part.head_hidden_size, part.head_dropout
            )
        if "aesthetic" in config.branches:
            part = config.aesthetic_config
            self.aesthetic_backbone = _build(ConvNeXt3D, part)
            self.aesthetic_head = VQAHead(
                self.aesthetic_backbone.num_features, part.head_hidden_size, part.head_dropout
            )
        if "alignment" in config.branches:
            part = config.alignment_config
            self.alignment_backbone = _build(AlignmentBackbone, part)
            self.alignment_head = RewardHead(
                self.alignment_backbone.num_features, part.head_hidden_sizes, part.head_dropouts
            )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        if "alignment" not in self.config.branches:
            raise NotImplementedError("this model has no text encoder: 'alignment' is not in config.branches.")
        return self.alignment_backbone.text_encoder.get_input_embeddings()

    def forward(
        self,
        pixel_values_fragments: Tensor | None = None,
        pixel_values_resized: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mos: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> AIGCVQAOutput | tuple:
        """Score a batch.

        Args:
            pixel_values_fragments: (B, T, 3, H, W), ImageNet-normalised; for the technical branch.
            pixel_values_resized: (B, T, 3, H, W), ImageNet-normalised; for the aesthetic and alignment branches. Either
                view may be (B, clips, T, 3, H, W): the clips of a video are scored one by one and their scores are
                averaged. Their maps are joined in time.
            input_ids, attention_mask: the prompt (B, L); for the alignment branch. Without a mask every token counts.
                Several prompts per clip, (B, P, L), are scored against frames that are encoded once; alignment and
                quality scores are then (B, P).
            mos: labels (B,) on the scale that the scores should have (`config.mos_std`). If given, `loss` is the sum of
                eq. 6 and 7 on the quality score and, if several branches are built, on the score of every branch
                (stage 3 of the paper).
            return_dict: False for a tuple.

        Raises:
            ValueError: if the input of a built branch is missing or has a wrong shape.
        """
        outputs = AIGCVQAOutput()
        if "technical" in self.config.branches:
            outputs.technical_map = self.score_map("technical", pixel_values_fragments)
            outputs.technical_score = outputs.technical_map.mean((1, 2, 3))
        if "aesthetic" in self.config.branches:
            outputs.aesthetic_map = self.score_map("aesthetic", pixel_values_resized)
            outputs.aesthetic_score = outputs.aesthetic_map.mean((1, 2, 3))
        if "alignment" in self.config.branches:
            video_tokens = self.encode_video(pixel_values_resized)
            outputs.alignment_score = self.score_prompts(video_tokens, input_ids, attention_mask)
        scores = [getattr(outputs, f"{branch}_score") for branch in self.config.branches]
        if scores[-1].ndim == 2:  # several prompts: (B,) becomes (B, 1), which broadcasts over the prompts
            scores = [score.reshape(len(score), -1) for score in scores]
        outputs.quality_score = torch.stack(torch.broadcast_tensors(*scores)).sum(0)
        if mos is not None:
            outputs.loss = self._loss(scores, outputs.quality_score, mos)
        return outputs if return_dict in (None, True) else outputs.to_tuple()

    def score_map(self, branch: str, pixel_values: Tensor) -> Tensor:
        """A score for every position from the technical or the aesthetic branch; their mean is the branch's score.

        Args:
            branch: "technical" or "aesthetic".
            pixel_values: the view of the branch, (B, T, 3, H, W) or (B, clips, T, 3, H, W), as in `forward`.

        Returns:
            (B, clips T/2, H/32, W/32), float32.
        """
        (name,) = BRANCH_INPUTS[branch]
        pixel_values = self._check_video(branch, name, pixel_values)
        clips = rearrange(pixel_values.to(self.dtype), "b k t c h w -> (b k) c t h w")
        score_map = _in_float32(getattr(self, f"{branch}_head"), getattr(self, f"{branch}_backbone")(clips))
        part = getattr(self.config, f"{branch}_config")
        score_map = part.score_scale * score_map + part.score_shift
        return rearrange(score_map, "(b k) t h w -> b (k t) h w", k=pixel_values.shape[1])

    def encode_video(self, pixel_values_resized: Tensor) -> Tensor:
        """Visual tokens for `score_prompts`, computed once per video for any number of prompts.

        Args:
            pixel_values_resized: (B, T, 3, H, W) or (B, clips, T, 3, H, W), as in `forward`.

        Returns:
            (B, V, N, C): V sequences of N tokens. The prompt is scored against each sequence and the scores are
            averaged. With the adapter every clip is one sequence; without it every frame is one.
        """
        pixel_values = self._check_video("alignment", "pixel_values_resized", pixel_values_resized)
        size = self.config.alignment_config.image_size
        if pixel_values.shape[-2:] != (size, size):
            raise ValueError(
                f"pixel_values_resized has frames of {tuple(pixel_values.shape[-2:])}; the alignment branch takes "
                f"{size} x {size}. Set the size of the processor to {size}."
            )
        clips, num_frames = pixel_values.shape[1:3]
        if (self.config.alignment_num_frames or num_frames) < num_frames:
            pixel_values = pixel_values[:, :, sample_frame_indices(num_frames, self.config.alignment_num_frames)]
        frames = imagenet_to_clip(pixel_values.flatten(0, 1)).to(self.dtype)
        return rearrange(self.alignment_backbone.encode_video(frames), "(b k) v n c -> b (k v) n c", k=clips)

    def score_prompts(self, video_tokens: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Alignment scores of videos against prompts.

        Args:
            video_tokens: output of `encode_video`, (B, V, N, C).
            input_ids, attention_mask: one prompt per video (B, L), or several (B, P, L). Without a mask every token
                counts.

        Returns:
            (B,) or (B, P), float32.
        """
        part = self.config.alignment_config
        if input_ids is None:
            raise ValueError("the alignment branch needs input_ids; pass the prompt to the processor as text=...")
        if input_ids.ndim not in (2, 3) or input_ids.shape[0] != video_tokens.shape[0]:
            raise ValueError(
                f"input_ids must be (B, L), one prompt per video, or (B, P, L) (got {tuple(input_ids.shape)} for "
                f"{video_tokens.shape[0]} videos)."
            )
        if input_ids.shape[-1] > part.max_position_embeddings:
            raise ValueError(
                f"input_ids has {input_ids.shape[-1]} tokens, above max_position_embeddings="
                f"{part.max_position_embeddings}; let the processor truncate the prompt."
            )
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        sequences, prompts = video_tokens.shape[1], input_ids.shape[1:-1]
        tokens = video_tokens.flatten(0, 1).repeat_interleave(prompts.numel(), 0)
        ids, mask = (values.repeat_interleave(sequences, 0).flatten(0, -2) for values in (input_ids, attention_mask))
        features = self.alignment_backbone.encode_text(tokens, ids, mask)
        scores = _in_float32(self.alignment_head, features)[..., 0].view(-1, sequences, *prompts).mean(1)
        return part.score_scale * scores + part.score_shift

    def _check_video(self, branch: str, name: str, pixel_values: Tensor | None) -> Tensor:
        """Any accepted shape -> (B, clips, T, 3, H, W)."""
        if pixel_values is None:
            raise ValueError(f"the {branch} branch needs {name}; pass videos=... to the processor.")
        if pixel_values.ndim not in (5, 6) or pixel_values.shape[-3] != 3 or 0 in pixel_values.shape:
            raise ValueError(
                f"{name} must be (B, T, 3, H, W) or (B, clips, T, 3, H, W) (got {tuple(pixel_values.shape)})."
            )
        return pixel_values if pixel_values.ndim == 6 else pixel_values[:, None]

    def _loss(self, scores: list[Tensor], quality: Tensor, mos: Tensor) -> Tensor:
        weights = (self.config.plcc_loss_weight, self.config.rank_loss_weight)
        terms = [quality] if len(scores) == 1 else [quality, *scores]
        mos = torch.as_tensor(mos, device=quality.device) / self.config.mos_std
        return torch.stack([quality_loss(term / self.config.mos_std, mos, *weights) for term in terms]).sum()


def imagenet_to_clip(pixel_values: Tensor) -> Tensor:
    """Convert ImageNet-normalised frames (..., 3, H, W) to CLIP-normalised frames, float32."""
    statistics = list(zip(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    scale = [std / clip_std for _, std, _, clip_std in statistics]
    shift = [(mean - clip_mean) / clip_std for mean, _, clip_mean, clip_std in statistics]
    pixel_values = pixel_values.float()
    return pixel_values * pixel_values.new_tensor(scale)[:, None, None] + pixel_values.new_tensor(shift)[:, None, None]


__all__ = ["AIGCVQAModel", "AIGCVQAOutput", "AIGCVQAPreTrainedModel"]
