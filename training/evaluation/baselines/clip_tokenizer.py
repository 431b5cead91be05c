"""OpenAI CLIP's tokenizer, from its published vocabulary, with the cleaning that its code does before."""

import gzip
import html
from pathlib import Path

import ftfy
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"  # OpenAI's file, MIT; also inside the PyPI package open_clip_torch
MERGES = 49152 - 256 - 2  # that the published code reads of it
HUB_ID = "openai/clip-vit-base-patch32"  # has the same vocabulary


def clip_tokenizer(weights: str | Path) -> CLIPTokenizer:
    """The tokenizer with the vocabulary beside a file of weights, or else that of OpenAI's model on the Hub.

    Raises:
        ValueError: if neither can be read; says what to put where.
    """
    file = Path(weights).with_name(VOCABULARY)
    if file.is_file():
        return tokenizer_of(file)
    try:
        return CLIPTokenizer.from_pretrained(HUB_ID)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the vocabulary of CLIP is neither '{file}' nor in the cache of the Hub ({HUB_ID}); put the file there, "
            "it is in the PyPI package open_clip_torch."
        ) from error


def tokenizer_of(file: Path) -> CLIPTokenizer:
    """The tokenizer with the vocabulary in OpenAI's file of merges."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        merges = [tuple(line.split()) for line in lines.read().split("\n")[1 : MERGES + 1] if line]
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=merges)


def cleaned(text: str) -> str:
    """The text as the published code cleans it; the tokenizer does the rest: blanks and lower case."""
    return html.unescape(html.unescape(ftfy.fix_text(text)))
