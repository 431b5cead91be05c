"""Plain reference implementations of the three networks: slow, in float32, without fused kernels or caches.

The tests compare the model with them, and the benchmark measures how much faster the model is. Every function takes the
state dict of the model, so that both use the same parameters.
"""

import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

StateDict = dict[str, Tensor]


def below(state: StateDict, prefix: str) -> StateDict:
    """The entries of `state` that start with `prefix`, with the prefix removed."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def linear(state: StateDict, name: str, x: Tensor) -> Tensor:
    y = x @ state[f"{name}.weight"].flatten(1).T
    return y + state[f"{name}.bias"] if f"{name}.bias" in state else y


def layer_norm(state: StateDict, name: str, x: Tensor, eps: float) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps) * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v over the last two axes."""
    return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias, -1) @ v


def map_score(state: StateDict, features: Tensor) -> Tensor:
    """VQA head: (B, T, H, W, C) -> (B, T, H, W)."""
    return linear(state, "fc_last", gelu(linear(state, "fc_hid", features)))[..., 0]


# ---- technical -------------------------------------------------------------------------------------------------------


def fragment_labels(positions: Tensor, grid: Tensor, window: Tensor) -> Tensor:
    """The fragment of every token, (N, 2): nearest neighbour from the window's (H, W) to the grid's (H, W)."""
    return (positions * window // grid)[:, 1:]


def window_bias(
    state: StateDict, places: Tensor, grid: tuple, window: tuple, table_window: tuple, shift: tuple
) -> Tensor:
    """Bias between the tokens of one window, (heads, N, N). `places` (N, 3) are the positions after the shift."""
    grid, window, shift = torch.tensor(grid), torch.tensor(window), torch.tensor(shift)
    row = torch.zeros(len(places), len(places), dtype=torch.long)
    for axis, size in enumerate(table_window):
        distance = places[:, None, axis] - places[None, :, axis]
        row = row * (2 * size - 1) + distance + size - 1
    bias = state["relative_position_bias_table"][row]
    if "fragment_position_bias_table" in state:
        labels = fragment_labels((places + shift) % grid, grid, window)
        gate = (labels[:, None] - labels[None, :]).abs().sum(-1)[..., None]
        bias = bias * gate + state["fragment_position_bias_table"][row] * (1 - gate)
    # After the roll, a window may hold tokens from opposite sides of the clip, which do not attend to each other.
    side = ((places >= grid - window).long() + (places >= grid - shift)) * (shift > 0)
    strangers = (side[:, None] != side[None, :]).any(-1, keepdim=True)
    return (bias - 100.0 * strangers).permute(2, 0, 1)


def window_attention(state: StateDict, tokens: Tensor, window_size: tuple, shifted: bool, heads: int) -> Tensor:
    """(B, D, H, W, C) -> same shape: pad, shift, attend within every window, undo the shift and the padding."""
    grid = tokens.shape[1:4]
    window = tuple(min(size, length) for size, length in zip(window_size, grid))
    half = tuple(size // 2 if shifted and length > size else 0 for size, length in zip(window_size, grid))
    padded = tuple(math.ceil(length / size) * size for length, size in zip(grid, window))
    canvas = tokens.new_zeros(tokens.shape[0], *padded, tokens.shape[4])
    canvas[:, : grid[0], : grid[1], : grid[2]] = tokens
    canvas = canvas.roll([-step for step in half], (1, 2, 3))
    output = torch.zeros_like(canvas)
    for corner in product(*(range(0, length, size) for length, size in zip(padded, window))):
        area = (slice(None), *(slice(start, start + size) for start, size in zip(corner, window)))
        places = torch.tensor(list(product(*(range(start, start + size) for start, size in zip(corner, window)))))
        bias = window_bias(state, places, padded, window, window_size, half)
        qkv = linear(state, "qkv", canvas[area].flatten(1, 3))
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        mixed = attention(q, k, v, bias).transpose(1, 2).flatten(2)
        output[area] = linear(state, "proj", mixed).unflatten(1, window)
    output = output.roll(half, (1, 2, 3))
    return output[:, : grid[0], : grid[1], : grid[2]]


def patch_merging(state: StateDict, tokens: Tensor) -> Tensor:
    tokens = F.pad(tokens, (0, 0, 0, tokens.shape[3] % 2, 0, tokens.shape[2] % 2))
    quarters = [tokens[:, :, row::2, column::2] for column, row in product((0, 1), repeat=2)]
    return linear(state, "reduction", layer_norm(state, "norm", torch.cat(quarters, -1), 1e-5))


def swin3d(state: StateDict, video: Tensor, config) -> Tensor:
    """`SwinTransformer3D`: (B, 3, T, H, W) -> (B, T/2, H/32, W/32, C); `config` is an `AIGCVQATechnicalConfig`."""
    patch = tuple(config.patch_size)
    missing = [-length % size for length, size in zip(video.shape[2:], patch)]
    video = F.pad(video, (0, missing[2], 0, missing[1], 0, missing[0]))
    tokens = F.conv3d(video, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
    tokens = layer_norm(state, "patch_embed.norm", tokens.permute(0, 2, 3, 4, 1), 1e-5)
    for stage, (depth, heads) in enumerate(zip(config.depths, config.num_heads)):
        for index in range(depth):
            block = below(state, f"layers.{stage}.blocks.{index}.")
            normed = layer_norm(block, "norm1", tokens, 1e-5)
            tokens = tokens + window_attention(
                below(block, "attn."), normed, tuple(config.window_size), index % 2 == 1, heads
            )
            tokens = tokens + linear(
                block, "mlp.fc2", gelu(linear(block, "mlp.fc1", layer_norm(block, "norm2", tokens, 1e-5)))
            )
        if stage < len(config.depths) - 1:
            tokens = patch_merging(below(state, f"layers.{stage}.downsample."), tokens)
    return layer_norm(state, "norm", tokens, 1e-5)


# ---- aesthetic -------------------------------------------------------------------------------------------------------


def convnext3d(state: StateDict, video: Tensor, config) -> Tensor:
    """`ConvNeXt3D`: (B, 3, T, H, W) -> (B, T/2, H/32, W/32, C); `config` is an `AIGCVQAAestheticConfig`."""
    last = [video[:, :, -1:]] * (-video.shape[2] % config.patch_size[0])
    features = torch.cat([video, *last], 2)
    for stage, depth in enumerate(config.depths):
        conv, norm, stride = (0, 1, tuple(config.patch_size)) if stage == 0 else (1, 0, (1, 2, 2))
        layer = below(state, f"downsample_layers.{stage}.")
        if stage > 0:
            features = layer_norm(layer, f"{norm}", features.permute(0, 2, 3, 4, 1), 1e-6).permute(0, 4, 1, 2, 3)
        features = F.conv3d(features, layer[f"{conv}.weight"], layer[f"{conv}.bias"], stride=stride)
        if stage == 0:
            features = layer_norm(layer, f"{norm}", features.permute(0, 2, 3, 4, 1), 1e-6).permute(0, 4, 1, 2, 3)
        for index in range(depth):
            block = below(state, f"stages.{stage}.{index}.")
            weight = block["dwconv.weight"]
            padding = tuple(size // 2 for size in weight.shape[2:])
            hidden = F.conv3d(features, weight, block["dwconv.bias"], padding=padding, groups=weight.shape[0])
            hidden = layer_norm(block, "norm", hidden.permute(0, 2, 3, 4, 1), 1e-6)
            hidden = block["gamma"] * linear(block, "pwconv2", gelu(linear(block, "pwconv1", hidden)))
            features = features + hidden.permute(0, 4, 1, 2, 3)
    return layer_norm(state, "norm", features.permute(0, 2, 3, 4, 1), 1e-6)


# ---- alignment -------------------------------------------------------------------------------------------------------


def split_heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def vision_transformer(state: StateDict, frames: Tensor, config) -> Tensor:
    """ViT of BLIP: (B, 3, H, W) -> (B, 1 + patches, C); `config` is an `AIGCVQAAlignmentConfig`."""
    heads, eps = config.vision_num_attention_heads, config.vision_layer_norm_eps
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    patches = F.conv2d(frames, weight, bias, stride=config.patch_size).flatten(2).transpose(1, 2)
    tokens = torch.cat([state["cls_token"].expand(len(patches), -1, -1), patches], 1) + state["pos_embed"]
    for index in range(config.vision_num_hidden_layers):
        block = below(state, f"blocks.{index}.")
        qkv = linear(block, "attn.qkv", layer_norm(block, "norm1", tokens, eps)).chunk(3, -1)
        mixed = attention(*(split_heads(part, heads) for part in qkv)).transpose(1, 2).flatten(2)
        tokens = tokens + linear(block, "attn.proj", mixed)
        tokens = tokens + linear(
            block, "mlp.fc2", gelu(linear(block, "mlp.fc1", layer_norm(block, "norm2", tokens, eps)))
        )
    return layer_norm(state, "norm", tokens, eps)


def st_adapter(state: StateDict, tokens: Tensor, config) -> Tensor:
    """(B, T, 1 + h w, C) -> same shape: paper eq. 3 with GELU."""
    side = config.image_size // config.patch_size
    hidden = linear(state, "down", tokens[:, :, 1:]).unflatten(2, (side, side)).permute(0, 4, 1, 2, 3)
    padding = tuple(size // 2 for size in config.adapter_kernel_size)
    hidden = F.conv3d(hidden, state["conv.weight"], state["conv.bias"], padding=padding, groups=hidden.shape[1])
    change = linear(state, "up", gelu(hidden).permute(0, 2, 3, 4, 1).flatten(2, 3))
    return torch.cat([tokens[:, :, :1], tokens[:, :, 1:] + change], 2)


def text_encoder(state: StateDict, input_ids: Tensor, attention_mask: Tensor, context: Tensor, config) -> Tensor:
    """Image-grounded text encoder of BLIP: ids and mask (B, L), context (B, N, C') -> (B, L, C)."""
    heads, eps = config.text_num_attention_heads, 1e-12
    words = state["embeddings.word_embeddings.weight"][input_ids]
    tokens = words + state["embeddings.position_embeddings.weight"][: input_ids.shape[1]]
    tokens = layer_norm(state, "embeddings.LayerNorm", tokens, eps)
    hidden_keys = torch.where(attention_mask.bool(), 0.0, -torch.inf)[:, None, None]
    for index in range(config.text_num_hidden_layers):
        layer = below(state, f"encoder.layer.{index}.")
        for name, keys, bias in (("attention", None, hidden_keys), ("crossattention", context, 0.0)):
            keys = tokens if keys is None else keys
            q, k, v = (
                split_heads(linear(layer, f"{name}.self.{part}", source), heads)
                for part, source in (("query", tokens), ("key", keys), ("value", keys))
            )
            mixed = linear(layer, f"{name}.output.dense", attention(q, k, v, bias).transpose(1, 2).flatten(2))
            tokens = layer_norm(layer, f"{name}.output.LayerNorm", tokens + mixed, eps)
        hidden = linear(layer, "output.dense", gelu(linear(layer, "intermediate.dense", tokens)))
        tokens = layer_norm(layer, "output.LayerNorm", tokens + hidden, eps)
    return tokens


def alignment_backbone(state: StateDict, frames: Tensor, input_ids: Tensor, attention_mask: Tensor, config) -> Tensor:
    """`AlignmentBackbone` frame by frame: (B, T, 3, H, W), CLIP-normalised -> (B, 1 or T, C)."""
    vision, text = below(state, "visual_encoder."), below(state, "text_encoder.")
    tokens = torch.stack([vision_transformer(vision, frame, config) for frame in frames.unbind(1)], 1)
    if config.adapter is None:
        scored = [text_encoder(text, input_ids, attention_mask, frame, config)[:, 0] for frame in tokens.unbind(1)]
        return torch.stack(scored, 1)
    tokens = st_adapter(below(state, "adapter."), tokens, config)
    return text_encoder(text, input_ids, attention_mask, tokens.flatten(1, 2), config)[:, :1]
