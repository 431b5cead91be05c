"""The alignment branch: BLIP's vision and image-grounded text encoders with a spatial-temporal adapter between them.

Sources: BLIP (Li et al., ICML 2022; https://github.com/salesforce/BLIP, BSD-3-Clause), ImageReward (Xu et al., NeurIPS
2023; https://github.com/THUDM/ImageReward, Apache-2.0) and ST-Adapter (Pan et al., NeurIPS 2022). The encoders are
timm's ViT and transformers' BLIP text model; parameter names below `visual_encoder` and `text_encoder` are BLIP's.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipTextModel
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention

from .backbone_convnext3d import DepthwiseConv3d
from .fused_linear_aigcvqa import FusedLinear, FusedMlp, scores_on_cpu

# Number of frames that the vision encoder takes at once when it scores on a CPU. Its largest activation (queries, keys
# and values, 18 MiB in float32 for ViT-L) then stays below 32 MiB, the size up to which glibc reuses memory.
FRAMES_AT_ONCE = 8


class VisionBlock(GradientCheckpointingLayer, Block):
    """timm's ViT block with transformers' gradient checkpointing and `FusedLinear` layers."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0, **options):
        super().__init__(dim, num_heads, mlp_ratio, **options)
        self.attn.qkv, self.attn.proj = FusedLinear(dim, 3 * dim), FusedLinear(dim, dim)
        self.mlp = FusedMlp(dim, int(dim * mlp_ratio))


class STAdapter(nn.Module):
    """Spatial-temporal adapter, f(r) = r + act(DWConv3D(r W_down)) W_up (paper eq. 3), the identity at initialisation.

    (B, T, 1 + h w, C) -> the same shape. The class token is left unchanged, because it has no place in the grid.
    """

    def __init__(self, dim: int, hidden_size: int, kernel_size: tuple[int, int, int], activation: str):
        super().__init__()
        self.down = nn.Linear(dim, hidden_size)
        self.conv = DepthwiseConv3d(hidden_size, kernel_size)
        self.conv.init_std = 0.0  # as published: if the convolution gives 0, the adapter is the identity
        self.act = ACT2FN[activation]
        self.up = nn.Linear(hidden_size, dim)

    def forward(self, tokens: Tensor, height: int) -> Tensor:
        hidden = rearrange(self.down(tokens[:, :, 1:]), "b t (h w) c -> b c t h w", h=height)
        hidden = rearrange(self.act(self.conv(hidden)), "b c t h w -> b t (h w) c")
        return tokens + F.pad(self.up(hidden), (0, 0, 1, 0))


class GroundedAttention(BlipTextSelfAttention):
    """BLIP's cross-attention, which scores short prompts without computing keys and values of the visual tokens.

    A clip has N = 3152 visual tokens x, a prompt only about a dozen tokens. Because q (W_k x + b_k) = (q W_k) x + a
    constant that the softmax ignores, and sum p (W_v x + b_v) = W_v (sum p x) + b_v, both weights can be applied to
    the prompt's side. This is cheaper if the prompt has fewer tokens than a head has channels. The results are equal up
    to rounding.
    """

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        **options,
    ) -> tuple[Tensor, Tensor]:
        """Prompt (B, L, C) and visual tokens (B, N, C') -> context (B, L, C) and attention (B, heads, L, N)."""
        offloaded = self.key.weight.device != hidden_states.device  # accelerate loads it only while the layer is called
        scoring = not (self.training or torch.is_grad_enabled())
        plain = type(self.key) is type(self.value) is nn.Linear  # a layer with a LoRA adapter is more than its weight
        if not scoring or not plain or offloaded or hidden_states.shape[1] >= self.attention_head_size:
            return super().forward(hidden_states, attention_mask, encoder_hidden_states, **options)
        split = {"heads": self.num_attention_heads}
        query = rearrange(self.query(hidden_states), "b l (heads d) -> heads (b l) d", **split)
        key, value = (rearrange(part.weight, "(heads d) c -> heads d c", **split) for part in (self.key, self.value))
        query = rearrange(query @ key, "heads (b l) c -> b (heads l) c", b=len(hidden_states))
        # Transpose the short product and not the visual tokens, which would be copied in every layer.
        logits = (encoder_hidden_states @ query.transpose(1, 2)).transpose(1, 2) / math.sqrt(self.attention_head_size)
        attention = logits.softmax(-1)
        seen = rearrange(attention @ encoder_hidden_states, "b (heads l) c -> heads (b l) c", **split)
        context = rearrange(seen @ value.transpose(1, 2), "heads (b l) d -> b l (heads d)", b=len(hidden_states))
        return context + self.value.bias, attention.unflatten(1, (self.num_attention_heads, -1))


class RewardHead(nn.Sequential):
    """ImageReward's head: linear layers without activations. (..., in_features) -> (..., 1)."""

    def __init__(self, in_features: int, hidden_sizes: tuple[int, ...], dropouts: tuple[float, ...]):
        layers = []
        for size, rate in zip(hidden_sizes, dropouts):
            layers.append(nn.Linear(in_features, size))
            if rate > 0:
                layers.append(nn.Dropout(rate))
            in_features = size
        super().__init__(*layers, nn.Linear(in_features, 1))
        for layer in self:
            if isinstance(layer, nn.Linear):  # keeps the variance through the linear layers
                layer.init_std = layer.in_features**-0.5


class AlignmentBackbone(nn.Module):
    """Vision encoder per frame, adapter, one image-grounded text pass over the tokens of all frames (section 3.2).

    The arguments are the fields of the same names in `AIGCVQAAlignmentConfig`.
    """

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        vision_hidden_size: int = 1024,
        vision_num_hidden_layers: int = 24,
        vision_num_attention_heads: int = 16,
        vision_mlp_ratio: float = 4.0,
        vision_layer_norm_eps: float = 1e-6,
        vision_drop_path_rate: float = 0.0,
        vocab_size: int = 30524,
        text_hidden_size: int = 768,
        text_num_hidden_layers: int = 12,
        text_num_attention_heads: int = 12,
        text_intermediate_size: int = 3072,
        text_dropout: float = 0.0,
        max_position_embeddings: int = 512,
        pad_token_id: int = 0,
        adapter: str | None = "st_adapter",
        adapter_hidden_size: int = 384,
        adapter_kernel_size: tuple[int, int, int] = (3, 3, 3),
        adapter_activation: str = "gelu",
    ):
        super().__init__()
        self.image_size = image_size
        self.grid_height = image_size // patch_size
        self.num_features = text_hidden_size
        self.visual_encoder = VisionTransformer(
            img_size=image_size,
            patch_size=patch_size,
            embed_dim=vision_hidden_size,
            depth=vision_num_hidden_layers,
            num_heads=vision_num_attention_heads,
            mlp_ratio=vision_mlp_ratio,
            drop_path_rate=vision_drop_path_rate,
            norm_layer=partial(nn.LayerNorm, eps=vision_layer_norm_eps),
            block_fn=VisionBlock,
            num_classes=0,
            global_pool="",
            weight_init="skip",
        )
        self.adapter = (
            STAdapter(vision_hidden_size, adapter_hidden_size, adapter_kernel_size, adapter_activation)
            if adapter
            else None
        )
        # is_decoder creates the cross-attention; the attention stays bidirectional.
        self.text_encoder = BlipTextModel(
            BlipTextConfig(
                vocab_size=vocab_size,
                hidden_size=text_hidden_size,
                encoder_hidden_size=vision_hidden_size,
                intermediate_size=text_intermediate_size,
                num_hidden_layers=text_num_hidden_layers,
                num_attention_heads=text_num_attention_heads,
                max_position_embeddings=max_position_embeddings,
                hidden_dropout_prob=text_dropout,
                attention_probs_dropout_prob=text_dropout,
                pad_token_id=pad_token_id,
                is_decoder=True,
                use_cache=False,
                attn_implementation="eager",  # the only one that transformers' BLIP has
            ),
            add_pooling_layer=False,
        )
        for index, layer in enumerate(self.text_encoder.encoder.layer):
            layer.crossattention.self = GroundedAttention(self.text_encoder.config, True, layer_idx=index)

    def encode_frames(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W), CLIP-normalised -> tokens after the adapter (B, T, 1 + patches, vision_hidden_size)."""
        images = frames.flatten(0, 1)
        parts = images.split(FRAMES_AT_ONCE) if scores_on_cpu(images) and not self.training else [images]
        tokens = torch.cat([self.visual_encoder(part) for part in parts]).unflatten(0, frames.shape[:2])
        return tokens if self.adapter is None else self.adapter(tokens, self.grid_height)

    def encode_video(self, frames: Tensor) -> Tensor:
        """(B, T, 3, H, W), CLIP-normalised -> K sequences of tokens for `encode_text` (B, K, N, vision_hidden_size).

        With the adapter, the tokens of all frames are one sequence (K = 1); without it, every frame is one (K = T).
        """
        joined = self.adapter is not None
        return rearrange(self.encode_frames(frames), "b t n c -> b 1 (t n) c" if joined else "b t n c -> b t n c")

    def encode_text(self, tokens: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Visual tokens (B, N, C), ids and mask (B, L) -> the text encoder's output at position 0 (B, num_features)."""
        output = self.text_encoder(
            input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=tokens, return_dict=True
        )
        return output.last_hidden_state[:, 0]
