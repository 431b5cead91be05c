"""The effect of every word of a prompt on the alignment score of a clip."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..pipeline_aigcvqa import AIGCVQAPipeline

WORD_METHODS = ("leave_out", "mask")
TEXT_BATCH = 8  # prompts per text pass; each needs memory for the keys and values of the tokens of all frames

# Words that name nothing visible. They are shown, but never listed among the weakest words.
# fmt: off
FUNCTION_WORDS = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "below", "by", "for", "from", "has", "his", "her", "in", "into", "is",
    "it", "its", "of", "on", "or", "over", "some", "that", "the", "their", "there", "this", "to", "under", "up",
    "very", "was", "while", "with"
})
# fmt: on


@dataclass(frozen=True)
class WordScore:
    """The effect of a word of the prompt on the alignment score.

    Args:
        word: the word, `prompt[start:end]`.
        effect: alignment score with the word minus alignment score without it. If it is negative, the clip fits the
            prompt better without the word.
    """

    word: str
    start: int
    end: int
    effect: float

    @property
    def is_content(self) -> bool:
        """Whether the word can be listed as weak; function words such as "the" cannot."""
        return self.word.lower() not in FUNCTION_WORDS


def check_word_method(method: str) -> None:
    if method not in WORD_METHODS:
        raise ValueError(f"word_method={method!r}: expected one of {list(WORD_METHODS)}.")


def word_scores(
    pipeline: AIGCVQAPipeline, pixel_values_resized: Tensor, prompt: str, method: str = "leave_out"
) -> tuple[list[WordScore], float]:
    """The effect of every word of the prompt, in order, on the alignment score of a clip (1, T, 3, H, W).

    The frames are encoded once. Words beyond the tokenizer's limit are left out, because the model does not read them.

    Returns:
        The words, and their joint effect: the score of the prompt minus the score of an empty prompt.

    Raises:
        ValueError: for an unknown method.
    """
    check_word_method(method)
    spans = word_spans(prompt, _read_length(pipeline, prompt))
    special = pipeline.processor.tokenizer.all_special_tokens
    variants = [without_word(prompt, span, method, special) for span in spans]
    prompts = [as_words(prompt, special), "", *variants]
    whole, empty, *without = map(float, score_prompts(pipeline, pixel_values_resized, prompts))
    words = [WordScore(prompt[start:end], start, end, whole - score) for (start, end), score in zip(spans, without)]
    return words, whole - empty


def word_spans(prompt: str, limit: int | None = None) -> list[tuple[int, int]]:
    """Start and end of every word that starts before `limit`. Hyphens and apostrophes may join the parts of a word."""
    spans = [match.span() for match in re.finditer(r"\w+(?:['\u2019-]\w+)*", prompt)]
    return [span for span in spans if limit is None or span[0] < limit]


def without_word(prompt: str, span: tuple[int, int], method: str = "leave_out", special: Sequence[str] = ()) -> str:
    """The prompt with a word removed ("leave_out") or replaced by BERT's [MASK] ("mask").

    Names of `special` tokens that the user has typed become words.
    """
    replacement = " " if method == "leave_out" else " [MASK] "
    before, after = (as_words(text, special) for text in (prompt[: span[0]], prompt[span[1] :]))
    return re.sub(r"\s+", " ", before + replacement + after).strip()


def as_words(text: str, special: Sequence[str]) -> str:
    """The text with spaces in the names of special tokens, so that the tokenizer splits "[PAD]" like any other text."""
    for token in special:
        text = text.replace(token, " ".join(re.findall(r"\w+|\W", token)))
    return text


def _read_length(pipeline: AIGCVQAPipeline, prompt: str) -> int:
    """Number of characters of the prompt that fit into the tokenizer's limit."""
    options = {"truncation": True, "split_special_tokens": True, "return_offsets_mapping": True}
    tokens = pipeline.processor.tokenizer(prompt, **options)
    return max(end for _, end in tokens["offset_mapping"])


@torch.no_grad()
def score_prompts(pipeline: AIGCVQAPipeline, pixel_values_resized: Tensor, prompts: list[str]) -> np.ndarray:
    """Alignment scores (P,) of one clip (1, T, 3, H, W), ImageNet-normalised, against each of P prompts.

    The frames are encoded once. A prompt may be empty.
    """
    model, tokenizer = pipeline.model, pipeline.processor.tokenizer
    video_tokens = model.encode_video(pixel_values_resized)
    scores = []
    for start in range(0, len(prompts), TEXT_BATCH):
        batch = prompts[start : start + TEXT_BATCH]
        tokens = tokenizer(batch, padding=True, truncation=True, return_token_type_ids=False, return_tensors="pt")
        ids, mask = (tokens[name][None].to(pipeline.device) for name in ("input_ids", "attention_mask"))
        scores.append(model.score_prompts(video_tokens, ids, mask)[0].cpu().numpy())
    return np.concatenate(scores)
