"""UMTScore (Liu et al., "FETV", NeurIPS 2023): the match logit of a fine-tuned UMT-L for 12 frames and the prompt.

Written after llyx97/FETV-EVAL, folder `UMT`, which has OpenGVLab/unmasked_teacher's network (MIT; BERT's files
Apache-2.0). Weights: lyx97/UMT-msrvtt-7k on the Hub, `ckpt_best.pth` (Apache-2.0).
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertTokenizer, BlipTextConfig, VideoMAEConfig, VideoMAEModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from modeling_aigcvqa.common.presets import default_tokenizer
from modeling_aigcvqa.loading import DTYPES
from modeling_aigcvqa.video_reading_aigcvqa import read_video

from ..scoring import Scorer, identity_of
from .checkpoints import CheckpointError, load_strictly, read_weights
from .clips import chosen_device, prompt_of, scored_in_batches

NUM_FRAMES, CONTEXT = 12, 32
CLS = 101
HEAD_DIM = 64  # of all published encoders
IMAGE_SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
UNUSED = {
    "temp": "the temperature of the training, which enters no score",
    "text_encoder.embeddings.position_ids": "0, 1, 2, ...",
}
VISION_NAMES = {
    "attn.proj": "attention.output.dense",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
DELETED = re.compile(r"([,.'!?\"()*#:;~])")


class UMTScore(nn.Module):
    """UMT-L with its text encoder and its fusion encoder, from the parts of transformers' VideoMAE, BERT and BLIP.

    Args:
        vision, text, fusion: their configs.
        joint: channels of the common space of the similarity, which enters no score.
    """

    def __init__(self, vision: VideoMAEConfig, text: BertConfig, fusion: BlipTextConfig, joint: int):
        super().__init__()
        self.vision = VideoMAEModel(vision)
        self.text = BertModel(text, add_pooling_layer=False)
        self.fusion = BlipTextModel(fusion, add_pooling_layer=False)
        del self.fusion.embeddings  # texts come as features
        self.pool_norm = nn.LayerNorm(vision.hidden_size, eps=vision.layer_norm_eps)
        self.vision_proj = nn.Linear(vision.hidden_size, joint)
        self.text_proj = nn.Linear(text.hidden_size, joint)
        self.itm_head = nn.Linear(text.hidden_size, 2)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        vision_heads: int | None = None,
        text_heads: int | None = None,
        image_size: int = IMAGE_SIZE,
    ) -> "UMTScore":
        """The model in eval mode with the weights of a published file; its sizes are those of the tensors.

        Args:
            vision_heads, text_heads: attention heads, which no tensor tells; of `HEAD_DIM` channels each by default.
            image_size: side of the frames in pixels, which no tensor tells either.

        Raises:
            CheckpointError: if the file is not UMTScore's.
        """
        state = read_weights(path, UNUSED)
        try:
            configs, fusion_from = configs_of(state, vision_heads, text_heads, image_size)
        except KeyError as error:
            raise CheckpointError(f"'{path}' is not of a UMTScore: it lacks {error}.") from error
        model = cls(*configs, joint=len(state["vision_proj.weight"]))
        load_strictly(model, renamed(state, fusion_from), path)
        return model.float().eval()

    def forward(self, frames: Tensor, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """The match logits of each clip with each text, and what the reference has of the way there.

        Args:
            frames: normalised (B, T, 3, H, W).
            input_ids, attention_mask: (N, 32), [CLS] and the word pieces, without [SEP], then padding.

        Returns:
            `score` (B, N), the logit of a match; `itm` (B, N, 2), both logits; `itc` (B, N), the similarity;
            `fusion_cls` and `fusion_first_cls` (B, N, C'); and what `encode_video` and `encode_text` give.
        """
        result = self.encode_video(frames) | self.encode_text(input_ids, attention_mask)
        clips, texts = len(frames), len(input_ids)
        result |= self.fuse(
            result["norm"].repeat_interleave(texts, 0),
            result["text.layer_last"].repeat(clips, 1, 1),
            attention_mask.repeat(clips, 1),
        )
        for name in ("fusion_first_cls", "fusion_cls", "itm"):
            result[name] = result[name].unflatten(0, (clips, texts))
        videos, words = F.normalize(result["proj"], dim=-1), F.normalize(result["text.proj"], dim=-1)
        similarity = torch.einsum("btc,nc->btn", videos, words).mean(1)
        return result | {"score": result["itm"][..., 1], "itc": similarity}

    def encode_video(self, frames: Tensor) -> dict[str, Tensor]:
        """Frames (B, T, 3, H, W) -> of their tokens, T h w in the order time, row, column: `patch`, `block0`,
        `block_mid`, `norm` (B, T h w, C) and `pos` (T h w, C); `pooled` (B, T, C), `proj` (B, T, D)."""
        patches = self.vision.embeddings.patch_embeddings(frames)
        positions = sinusoids(*patches.shape[1:]).to(patches)
        hidden, layers = patches + positions, self.vision.encoder.layer
        result = {"patch": patches, "pos": positions}
        for number, layer in enumerate(layers):
            output = layer(hidden)
            hidden = output[0] if isinstance(output, tuple) else output
            for name, place in (("block0", 0), ("block_mid", len(layers) // 2)):
                if number == place:
                    result[name] = hidden
        hidden = self.vision.layernorm(hidden)
        pooled = self.pool_norm(hidden.unflatten(1, (frames.shape[1], -1)).mean(2))
        return result | {"norm": hidden, "pooled": pooled, "proj": self.vision_proj(pooled)}

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Tokens (N, 32) -> `text.embeddings`, `.layer0`, `.layer_last` (N, 32, C'), `.cls` (N, C'), `.proj` (N, D)."""
        states = self.text(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True).hidden_states
        first = states[-1][:, 0]
        named = {"text.embeddings": states[0], "text.layer0": states[1], "text.layer_last": states[-1]}
        return named | {"text.cls": first, "text.proj": self.text_proj(first)}

    def fuse(self, video: Tensor, text: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Video tokens (B, L, C), texts (B, 32, C'), mask -> `fusion_first_cls`, `fusion_cls` (B, C'), `itm` (B, 2)."""
        output = self.fusion(
            encoder_embeds=text,
            attention_mask=attention_mask,
            encoder_hidden_states=video,
            output_hidden_states=True,
            is_decoder=False,
        )
        last = output.last_hidden_state[:, 0]
        return {"fusion_first_cls": output.hidden_states[1][:, 0], "fusion_cls": last, "itm": self.itm_head(last)}


def sinusoids(places: int, channels: int) -> Tensor:
    """The table of positions (places, channels), computed in float64: sine for even channels, cosine for odd ones."""
    steps = torch.arange(channels, dtype=torch.float64) // 2 * 2 / channels
    angles = torch.arange(places, dtype=torch.float64)[:, None] / 10000**steps
    return torch.where(torch.arange(channels) % 2 == 0, angles.sin(), angles.cos()).float()


def configs_of(
    state: dict[str, Tensor], vision_heads: int | None, text_heads: int | None, image_size: int
) -> tuple[tuple, int]:
    """The configs of the three encoders that these tensors are of, and the layer that the fusion begins with."""
    width, _, _, patch, _ = state["vision_encoder.encoder.patch_embed.proj.weight"].shape
    vocabulary, text_width = state["text_encoder.embeddings.word_embeddings.weight"].shape
    positions = len(state["text_encoder.embeddings.position_embeddings.weight"])
    inner = len(state["text_encoder.encoder.layer.0.intermediate.dense.weight"])

    def numbers(prefix: str, part: str) -> list[int]:
        place = prefix.count(".")
        found = {int(key.split(".")[place]) for key in state if key.startswith(prefix) and part in key}
        if not found:
            raise KeyError(f"{prefix}N{part}")
        return sorted(found)

    layers = numbers("text_encoder.encoder.layer.", ".attention.")
    fusion_from = numbers("text_encoder.encoder.layer.", ".crossattention.")[0]
    vision = VideoMAEConfig(
        image_size=image_size,
        patch_size=patch,
        num_frames=1,  # of a table of positions that is not used, see `sinusoids`
        tubelet_size=1,
        hidden_size=width,
        num_hidden_layers=len(numbers("vision_encoder.encoder.blocks.", ".norm1.")),
        num_attention_heads=vision_heads or width // HEAD_DIM,
        intermediate_size=len(state["vision_encoder.encoder.blocks.0.mlp.fc1.weight"]),
        layer_norm_eps=1e-6,
        qkv_bias=True,
        use_mean_pooling=False,
    )
    common: dict[str, Any] = {
        "hidden_size": text_width,
        "num_attention_heads": text_heads or text_width // HEAD_DIM,
        "intermediate_size": inner,
        "layer_norm_eps": 1e-12,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
    }
    text = BertConfig(num_hidden_layers=fusion_from, **common)
    tokens = {"bos_token_id": CLS, "eos_token_id": CLS + 1, "sep_token_id": CLS + 1}
    fusion = BlipTextConfig(
        num_hidden_layers=len(layers) - fusion_from, encoder_hidden_size=width, is_decoder=True, **common, **tokens
    )
    return (vision, text, fusion), fusion_from


def renamed(state: dict[str, Tensor], fusion_from: int) -> dict[str, Tensor]:
    """The tensors under the names of `UMTScore`; keys that it does not know keep theirs."""
    result = {}
    for key, value in state.items():
        parts = key.split(".")
        if key.startswith("vision_encoder.encoder.blocks."):
            result |= _renamed_block(f"vision.encoder.layer.{parts[3]}", ".".join(parts[4:]), value)
        elif key.startswith("text_encoder.encoder.layer."):
            layer, rest = int(parts[3]), ".".join(parts[4:])
            name = "text" if layer < fusion_from else "fusion"
            result[f"{name}.encoder.layer.{layer - (0 if name == 'text' else fusion_from)}.{rest}"] = value
        else:
            for before, after in (
                ("vision_encoder.encoder.patch_embed.proj", "vision.embeddings.patch_embeddings.projection"),
                ("vision_encoder.encoder.norm", "vision.layernorm"),
                ("vision_encoder.pool_norm", "pool_norm"),
                ("text_encoder.embeddings", "text.embeddings"),
            ):
                key = key.replace(before, after)
            result[key] = value
    return result


def _renamed_block(block: str, name: str, value: Tensor) -> dict[str, Tensor]:
    attention = f"{block}.attention.attention"
    if name == "attn.qkv.weight":
        return {f"{attention}.{part}.weight": rows for part, rows in zip(("query", "key", "value"), value.chunk(3))}
    if name in ("attn.q_bias", "attn.v_bias"):
        return {f"{attention}.{'query' if name == 'attn.q_bias' else 'value'}.bias": value}
    stem, _, kind = name.rpartition(".")
    return {f"{block}.{VISION_NAMES.get(stem, stem)}.{kind}": value}


# ------------------------------------------------------------------------------------------------ the published input


def frame_indices(total: int) -> list[int]:
    """The frame in the middle of each of 12 spans; of fewer than 12 frames each once, and the last one up to 12."""
    spans = min(total, NUM_FRAMES)
    bounds = [number * total // spans for number in range(spans + 1)]
    middles = [(start + end - 1) // 2 for start, end in zip(bounds, bounds[1:])]
    return middles + [middles[-1]] * (NUM_FRAMES - spans)


def normalised(frames: Tensor, side: int = 224) -> Tensor:
    """Frames (T, H, W, 3) uint8 -> (T, 3, side, side), resized straight, bicubic, rounded and without antialiasing."""
    values = frames.permute(0, 3, 1, 2).float()
    if values.shape[-2:] != (side, side):
        values = F.interpolate(values, size=(side, side), mode="bicubic", align_corners=False)
        values = values.clamp(0, 255).round()
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (MEAN, STD))
    return (values / 255 - mean) / std


def cleaned(prompt: str) -> str:
    """The prompt as the published `pre_text` cleans it."""
    text = DELETED.sub("", prompt.lower()).replace("-", " ").replace("/", " ").replace("<person>", "person")
    return re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ")


def token_ids(tokenizer: BertTokenizer, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Prompts -> tokens and mask, each (N, 32): [CLS], at most 31 word pieces, no [SEP], padding."""
    ids = torch.zeros(len(prompts), CONTEXT, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, seen, prompt in zip(ids, mask, prompts):
        tokens = tokenizer(cleaned(prompt), add_special_tokens=False, verbose=False)["input_ids"][: CONTEXT - 1]
        row[: len(tokens) + 1], seen[: len(tokens) + 1] = torch.tensor([CLS, *tokens]), 1
    return ids, mask


def read_clip(row: dict, side: int) -> dict[str, Any]:
    """A row of `load_clips` -> `frames` (12, 3, H, W) and `prompt`."""
    prompt = prompt_of(row)
    frames, _ = read_video(row["video"], frame_indices)
    return {"frames": normalised(frames, side), "prompt": prompt}


@torch.no_grad()
def score_batch(items: list[dict], model: UMTScore, tokenizer: BertTokenizer) -> list[float]:
    """The match logits of clips, items of `read_clip`, with their own prompts."""
    parameter = model.itm_head.weight
    frames = torch.stack([item["frames"] for item in items]).to(parameter.device, parameter.dtype)
    ids, mask = (part.to(parameter.device) for part in token_ids(tokenizer, [item["prompt"] for item in items]))
    video, text = model.encode_video(frames)["norm"], model.encode_text(ids, mask)["text.layer_last"]
    return model.fuse(video, text, mask)["itm"][:, 1].float().tolist()


def umtscore_scorer(weights: str, device: str, dtype: str | None, batch_size: int, num_workers: int) -> Scorer:
    """Scorer with the published weights in a file; the vocabulary is BERT's, which the package holds."""
    model = UMTScore.from_checkpoint(weights).to(chosen_device(device), DTYPES[dtype or "float32"])
    return Scorer(
        score=scored_in_batches(
            "umtscore",
            partial(read_clip, side=model.vision.config.image_size),
            partial(score_batch, model=model, tokenizer=default_tokenizer()),
            batch_size,
            num_workers,
        ),
        score_names=("umtscore",),
        identity=identity_of(model, "umtscore", model.vision.config.image_size),
        prompt_score="umtscore",
    )
