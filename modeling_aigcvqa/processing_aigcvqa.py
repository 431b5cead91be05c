"""The processor of AIGC-VQA: turns videos and prompts into the inputs of the model."""

import re
import unicodedata
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin, TextKwargs
from transformers.utils import logging

from .frames_aigcvqa import ReadLimits, reading_within
from .protocols_aigcvqa import get_protocol
from .saved_files_aigcvqa import clear_errors
from .video_processing_aigcvqa import AIGCVQAVideoProcessor  # noqa: F401 (travels with the processor)
from .video_reading_aigcvqa import split_batch

logger = logging.get_logger(__name__)

# "[PAD]" or "[SEP]" in a prompt are words that a user has typed, not tokens with a meaning.
TEXT_DEFAULTS = {"padding": True, "truncation": True, "return_token_type_ids": False, "split_special_tokens": True}
MAX_WORD = 100  # characters; BERT's tokenizer makes one unknown token of a longer word
CHARACTERS_PER_TOKEN = 32  # of the first part of a long prompt that is tried; a word has about 6
INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp"}  # Unicode categories: control and format characters, spaces


class AIGCVQAProcessor(ProcessorMixin):
    """Computes the two views of a video and the tokens of its prompt.

    Args:
        video_processor: an `AIGCVQAVideoProcessor`.
        tokenizer: BERT-uncased with the tokens [DEC] and [ENC] of BLIP. A prompt starts with [CLS], as in ImageReward,
            and is cut at the tokenizer's `model_max_length`.
        requires_prompt: whether empty prompts are refused; False for a model without the alignment branch.
    """

    def __init__(self, video_processor=None, tokenizer=None, requires_prompt: bool = True, chat_template=None):
        if not isinstance(requires_prompt, bool):
            raise TypeError(f"requires_prompt={requires_prompt!r}: expected true or false.")
        self.requires_prompt = requires_prompt
        self._warned_of_cuts = False
        super().__init__(video_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> "AIGCVQAProcessor":
        """As in the base class, but whatever is wrong with the files is one clear error.

        Raises:
            SavedFileError: for files of the processor or the tokenizer that are damaged or hold wrong values.
        """
        name = pretrained_model_name_or_path
        with clear_errors(f"the processor in '{name}' (processor_config.json and the tokenizer) cannot be loaded"):
            return super().from_pretrained(name, **kwargs)

    def __call__(
        self, videos: Any = None, text: str | list[str] | None = None, return_tensors: str = "pt", **kwargs: Any
    ) -> BatchFeature:
        """Process a video and its prompt, or a batch of both.

        Args:
            videos: one video or a list of videos, in any form that `read_video` accepts. None for only the tokens.
            text: one prompt per video. None for only the views.
            return_tensors: "pt" or "np".
            kwargs: options of the video processor (`num_frames`, `fragment_sampling`, `seed`, `device`, ...) and of the
                tokenizer (`max_length`, ...).

        Returns:
            `pixel_values_fragments`, `pixel_values_resized` (B, T, 3, 224, 224), `input_ids`, `attention_mask` (B, L).

        Raises:
            ValueError: if there is no input, not one prompt per video, an empty prompt or a video that cannot be read.
            TypeError: for an unknown option or a prompt that is not a str.
        """
        if videos is None and text is None:
            raise ValueError("nothing to process; pass videos=..., text=... or both.")
        text_options, video_options = self._split_options(kwargs)
        data = {}
        if text is not None:  # before the videos, so that a wrong prompt is refused without decoding anything
            prompts = [text] if isinstance(text, str) else list(text)
            if videos is not None:
                videos = split_batch(videos)
                if len(prompts) != len(videos):
                    raise ValueError(f"{len(prompts)} prompts for {len(videos)} videos; pass one prompt per video.")
            protocol = get_protocol(video_options.get("protocol") or self.video_processor.protocol)
            text_options["return_tensors"] = return_tensors
            data |= self._tokenize(prompts, text_options, protocol.max_prompt_tokens)
        if videos is not None:
            data |= self.video_processor(videos, return_tensors=return_tensors, **video_options)
        return BatchFeature(data)

    @staticmethod
    def reading_within(limits: ReadLimits) -> AbstractContextManager[None]:
        """Limits on all that this processor reads within a `with` block; see `ReadLimits`."""
        return reading_within(limits)

    def _split_options(self, options: dict) -> tuple[dict, dict]:
        """Separate the options of the tokenizer from those of the video processor.

        The base class has a method for this, but it copies a `generator`, which then gives the same numbers every time.
        """
        video_names = set(self.video_processor.valid_kwargs.__annotations__)
        text, videos = dict(TEXT_DEFAULTS), {}
        for name, value in options.items():
            if name in video_names:
                videos[name] = value
            elif name in TextKwargs.__annotations__:
                text[name] = value
            else:
                raise TypeError(
                    f"AIGCVQAProcessor has no option {name!r}; it takes {sorted(video_names)} and the tokenizer's."
                )
        return text, videos

    def _tokenize(self, prompts: list[str], options: dict, protocol_limit: int | None) -> BatchFeature:
        for index, prompt in enumerate(prompts):
            if not isinstance(prompt, str):
                raise TypeError(f"text[{index}] is {type(prompt).__name__}; a prompt is a str.")
            if not _is_valid(prompt):
                raise ValueError(
                    f"text[{index}]={prompt[:60]!r} has half of a surrogate pair; write it in valid Unicode."
                )
            if self.requires_prompt and all(unicodedata.category(character) in INVISIBLE for character in prompt):
                raise ValueError(
                    f"text[{index}]={prompt[:60]!r} is empty: the alignment branch scores a video against its prompt. "
                    "Pass the prompt, or build the model without 'alignment' in its branches."
                )
        limit = options.get("max_length") or protocol_limit or self.tokenizer.model_max_length
        if options["truncation"]:
            options = {**options, "max_length": limit}
            prompts = [self._beginning(prompt, limit) for prompt in prompts]
            if not self._warned_of_cuts:
                self._warn_of_cuts(prompts, limit)
        return self.tokenizer(prompts, **options)

    def _beginning(self, prompt: str, limit: int) -> str:
        """A beginning of the prompt whose first `limit` tokens are those of the prompt.

        A prompt of a million characters would take the tokenizer seconds.
        """
        length = CHARACTERS_PER_TOKEN * limit
        if len(prompt) <= length:
            return prompt
        prompt = re.sub(r"\s+", " ", prompt)
        prompt = re.sub(rf"([A-Za-z0-9]{{{MAX_WORD + 1}}})[A-Za-z0-9]+", r"\1", prompt)  # one unknown token as before
        while length < len(prompt):
            # The end may lie within a word, which gives other tokens, at most one per character.
            if len(self._tokens([prompt[:length]])[0]) > limit + MAX_WORD:
                return prompt[:length]
            length *= 4
        return prompt

    def _tokens(self, prompts: list[str]) -> list[list[int]]:
        """All tokens of each prompt."""
        options = {**TEXT_DEFAULTS, "padding": False, "truncation": False}
        return self.tokenizer(prompts, verbose=False, **options)["input_ids"]

    def _warn_of_cuts(self, prompts: list[str], limit: int) -> None:
        whole = self._tokens(prompts)
        for prompt, tokens in zip(prompts, whole):
            if len(tokens) > limit:
                cut = self.tokenizer.decode(tokens[limit - 1 :], skip_special_tokens=True)[-60:]
                self._warned_of_cuts = True
                logger.warning(
                    f"A prompt of at least {len(tokens)} tokens exceeds the limit of {limit}. The alignment branch "
                    f"ignores its end, ...{cut!r} (prompt: {prompt[:60]!r}...). Shorten the prompt or raise max_length."
                    " Only the first such prompt is reported."
                )
                return

    @property
    def model_input_names(self) -> list[str]:
        return [*self.video_processor.model_input_names, "input_ids", "attention_mask"]


def _is_valid(text: str) -> bool:
    """Whether a text can be encoded, which halves of surrogate pairs cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


__all__ = ["AIGCVQAProcessor"]
