"""ViCLIP (Wang et al., "InternVid", ICLR 2024): the cosine between a clip of 8 frames and its prompt.

Written after OpenGVLab/InternVideo, `Data/InternVid/viclip` (Apache-2.0). Weights: OpenGVLab/ViCLIP on the Hub,
`ViClip-InternVid-10M-FLT.pth` (MIT, gated).
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

from modeling_aigcvqa.loading import DTYPES
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from modeling_aigcvqa.video_reading_aigcvqa import read_video

from ..scoring import Scorer, identity_of
from .checkpoints import CheckpointError, load_strictly, read_weights, split_attention
from .clip_tokenizer import cleaned, clip_tokenizer
from .clips import EXTENDED, chosen_device, prompt_of, scored_in_batches

NUM_FRAMES, CONTEXT = 8, 32
START, END = 49406, 49407  # tokens
HEAD_DIM = 64  # of both published sizes, in both encoders
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, not CLIP's
UNUSED = {"temp": "the temperature of the training, which enters no score"}
NAMES = {
    "vision_encoder.class_embedding": "vision.vision_model.embeddings.class_embedding",
    "vision_encoder.positional_embedding": "vision.vision_model.embeddings.position_embedding.weight",
    "vision_encoder.temporal_positional_embedding": "temporal_position",
    "vision_encoder.conv1.weight": "vision.vision_model.embeddings.patch_embedding.weight",
    "vision_encoder.ln_pre": "vision.vision_model.pre_layrnorm",
    "vision_encoder.ln_post": "vision.vision_model.post_layernorm",
    "vision_encoder.proj": "vision.visual_projection.weight",
    "vision_encoder.transformer.resblocks": "vision.vision_model.encoder.layers",
    "text_encoder.token_embedding": "text.text_model.embeddings.token_embedding",
    "text_encoder.positional_embedding": "text.text_model.embeddings.position_embedding.weight",
    "text_encoder.ln_final": "text.text_model.final_layer_norm",
    "text_encoder.text_projection": "text.text_projection.weight",
    "text_encoder.transformer.resblocks": "text.text_model.encoder.layers",
}
INNER = {"attn": "self_attn", "ln_1": "layer_norm1", "ln_2": "layer_norm2", "c_fc": "fc1", "c_proj": "fc2"}
TRANSPOSED = ("vision_encoder.proj", "text_encoder.text_projection")  # stored (in, out)


class ViCLIP(nn.Module):
    """ViCLIP's two encoders, from the parts of transformers' CLIP.

    Args:
        vision, text: configs of CLIP's encoders with QuickGELU.
        num_frames: number of temporal positions.
    """

    def __init__(self, vision: CLIPVisionConfig, text: CLIPTextConfig, num_frames: int = NUM_FRAMES):
        super().__init__()
        self.vision = CLIPVisionModelWithProjection(vision)
        self.text = CLIPTextModelWithProjection(text)
        self.temporal_position = nn.Parameter(torch.zeros(1, num_frames, vision.hidden_size))

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, vision_heads: int | None = None, text_heads: int | None = None
    ) -> "ViCLIP":
        """The model in eval mode with the weights of a published file; its sizes are those of the tensors.

        Args:
            vision_heads, text_heads: attention heads, which no tensor tells; of `HEAD_DIM` channels each by default.

        Raises:
            CheckpointError: if the file is not ViCLIP's.
        """
        state = read_weights(path, UNUSED)
        try:
            vision, text = configs_of(state, vision_heads, text_heads)
            num_frames = state["vision_encoder.temporal_positional_embedding"].shape[1]
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"'{path}' is not of a ViCLIP: it lacks {error}.") from error
        with torch.device("meta"):
            model = cls(vision, text, num_frames)
        model.to_empty(device="cpu")
        for part in (model.vision.vision_model.embeddings, model.text.text_model.embeddings):
            part.position_ids = torch.arange(part.position_ids.shape[-1])[None]
        load_strictly(model, renamed(state), path)
        return model.float().eval()

    def forward(self, frames: Tensor, input_ids: Tensor) -> dict[str, Tensor]:
        """The embeddings of clips and texts, their cosines, and what the reference has of the way there.

        Args:
            frames: normalised (B, T, 3, H, W). T is 1, or at most the number of temporal positions.
            input_ids: (N, 32), from the start token to the end token, then padding of any kind.

        Returns:
            `video` (B, D) and `text` (N, D), raw; `video_unit`, `text_unit`, of length 1; `cosine` (B, N); `conv1`
            (B, C, T, h, w); of the tokens of clips (B, 1 + T h w, C), the class token first and then the patches, the
            frames of each together: `ln_pre`, `block0`, `block_mid`, `block_last`; `ln_post_cls` (B, C); of the tokens
            of texts `text.block0` (N, 32, C') and `text.ln_final_end` (N, C').
        """
        result = self.encode_video(frames) | self.encode_text(input_ids)
        for name in ("video", "text"):
            result[f"{name}_unit"] = F.normalize(result[name], dim=-1)
        return result | {"cosine": result["video_unit"] @ result["text_unit"].T}

    def encode_video(self, frames: Tensor) -> dict[str, Tensor]:
        """As `forward`, of the clips alone."""
        model = self.vision.vision_model
        embeddings, (batch, steps) = model.embeddings, frames.shape[:2]
        patches = embeddings.patch_embedding(frames.flatten(0, 1)).unflatten(0, (batch, steps))  # (B, T, C, h, w)
        positions = embeddings.position_embedding.weight
        times = self.temporal_position[0]
        times = times.mean(0, keepdim=True) if steps == 1 else times[:steps]
        tokens = patches.flatten(3).permute(0, 3, 1, 2)  # (B, h w, T, C)
        tokens = tokens + positions[1:, None] + times
        first = (embeddings.class_embedding + positions[0]).expand(batch, 1, -1)
        hidden = model.pre_layrnorm(torch.cat([first, tokens.flatten(1, 2)], dim=1))
        layers = model.encoder.layers
        result = {"conv1": patches.movedim(1, 2), "ln_pre": hidden}
        for number, layer in enumerate(layers):
            hidden = _hidden(layer(hidden, None))
            for name, place in (("block0", 0), ("block_mid", len(layers) // 2), ("block_last", len(layers) - 1)):
                if number == place:
                    result[name] = hidden
        last = model.post_layernorm(hidden[:, 0])
        return result | {"ln_post_cls": last, "video": self.vision.visual_projection(last)}

    def encode_text(self, input_ids: Tensor) -> dict[str, Tensor]:
        """As `forward`, of the texts alone."""
        output = self.text(input_ids=input_ids, output_hidden_states=True)
        end = (input_ids == END).int().argmax(1)
        final = output.last_hidden_state[torch.arange(len(end), device=end.device), end]
        return {"text.block0": output.hidden_states[1], "text.ln_final_end": final, "text": output.text_embeds}


def _hidden(output: Tensor | tuple) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def configs_of(
    state: dict[str, Tensor], vision_heads: int | None, text_heads: int | None
) -> tuple[CLIPVisionConfig, CLIPTextConfig]:
    """The sizes of the encoders that these tensors are of."""
    width, _, _, patch, _ = state["vision_encoder.conv1.weight"].shape
    side = round((len(state["vision_encoder.positional_embedding"]) - 1) ** 0.5) * patch
    joint = state["vision_encoder.proj"].shape[1]
    vocabulary, text_width = state["text_encoder.token_embedding.weight"].shape

    def layers(encoder: str) -> int:
        numbers = [int(key.split(".")[3]) for key in state if key.startswith(f"{encoder}.transformer.resblocks.")]
        if not numbers:
            raise KeyError(f"{encoder}.transformer.resblocks.0")
        return max(numbers) + 1

    common: dict[str, Any] = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": joint}
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers("vision_encoder"),
        num_attention_heads=vision_heads or width // HEAD_DIM,
        image_size=side,
        patch_size=patch,
        **common,
    )
    text = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=text_width,
        intermediate_size=4 * text_width,
        num_hidden_layers=layers("text_encoder"),
        num_attention_heads=text_heads or text_width // HEAD_DIM,
        max_position_embeddings=len(state["text_encoder.positional_embedding"]),
        bos_token_id=START,
        eos_token_id=END,
        **common,
    )
    return vision, text


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of `ViCLIP`; keys that it does not know keep theirs."""
    result = {}
    for key, value in state.items():
        if key in TRANSPOSED:
            value = value.T
        elif key == "vision_encoder.conv1.weight":
            value = value[:, :, 0]  # the kernel sees one frame
        stem = next((stem for stem in sorted(NAMES, key=len, reverse=True) if key.startswith(stem)), None)
        if stem is None:
            result[key] = value
            continue
        name = NAMES[stem] + key.removeprefix(stem)
        if "resblocks" in stem:
            name = ".".join(INNER.get(part, part) for part in name.split("."))
        result |= split_attention(name, value) if "in_proj_" in name else {name: value}
    return result


# ------------------------------------------------------------------------------------------------ the published input


def frame_indices(total: int) -> list[int]:
    """The frames that the published code takes of a clip: from the start, a whole number of frames apart.

    The tail of a clip is lost. For fewer than 8 frames it has no answer; here they repeat evenly.
    """
    if total < NUM_FRAMES:
        return sample_frame_indices(total, NUM_FRAMES)
    return [number * (total // NUM_FRAMES) for number in range(NUM_FRAMES)]


def normalised(frames: Tensor, side: int = 224) -> Tensor:
    """Frames (T, H, W, 3) uint8 -> (T, 3, side, side), resized straight and without antialiasing, as OpenCV does."""
    values = frames.permute(0, 3, 1, 2).float()
    if values.shape[-2:] != (side, side):
        values = F.interpolate(values, size=(side, side), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (MEAN, STD))
    return (values / 255 - mean) / std


def token_ids(tokenizer: Any, prompts: list[str]) -> Tensor:
    """Prompts -> (N, 32) tokens; what does not fit is cut, and the last token is the end token."""
    ids = torch.zeros(len(prompts), CONTEXT, dtype=torch.long)
    for row, prompt in zip(ids, prompts):
        tokens = tokenizer(cleaned(prompt), add_special_tokens=False, verbose=False)["input_ids"][: CONTEXT - 2]
        row[: len(tokens) + 2] = torch.tensor([START, *tokens, END])
    return ids


def read_clip(row: dict, side: int) -> dict[str, Any]:
    """A row of `load_clips` -> `frames` (8, 3, H, W) and `prompt`."""
    prompt = prompt_of(row)
    frames, metadata = read_video(row["video"], frame_indices)
    is_short = metadata.total_num_frames < NUM_FRAMES
    return {"frames": normalised(frames, side), "prompt": prompt, EXTENDED: is_short}


@torch.no_grad()
def score_batch(items: list[dict], model: ViCLIP, tokenizer: Any) -> list[float]:
    """The cosines of clips, items of `read_clip`, with their own prompts."""
    parameter = model.temporal_position
    frames = torch.stack([item["frames"] for item in items]).to(parameter.device, parameter.dtype)
    ids = token_ids(tokenizer, [item["prompt"] for item in items]).to(parameter.device)
    video, text = model.encode_video(frames)["video"], model.encode_text(ids)["text"]
    return F.cosine_similarity(video.float(), text.float(), dim=-1).tolist()


def viclip_scorer(weights: str, device: str, dtype: str | None, batch_size: int, num_workers: int) -> Scorer:
    """Scorer with the published weights in a file and the vocabulary of CLIP."""
    model = ViCLIP.from_checkpoint(weights).to(chosen_device(device), DTYPES[dtype or "float32"])
    tokenizer = clip_tokenizer(weights)
    side = model.vision.config.image_size
    return Scorer(
        score=scored_in_batches(
            "viclip",
            partial(read_clip, side=side),
            partial(score_batch, model=model, tokenizer=tokenizer),
            batch_size,
            num_workers,
        ),
        score_names=("viclip",),
        identity=identity_of(model, "viclip", side),
        prompt_score="viclip",
    )
