import pytest
import torch
from transformers.utils import logging

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAProcessor
from modeling_aigcvqa.common.presets import default_processor, default_tokenizer
from tests.conftest import moving_gradient

CLIP = moving_gradient(4, 224, 224)


def test_tokens_are_bert_s_with_the_two_of_blip():
    tokenizer = default_tokenizer()
    assert len(tokenizer) == 30524
    assert tokenizer.convert_tokens_to_ids(["[PAD]", "[CLS]", "[SEP]", "[DEC]", "[ENC]"]) == [0, 101, 102, 30522, 30523]
    # The ids that BERT's published tokenizer gives.
    assert tokenizer("Hello, World!")["input_ids"] == [101, 7592, 1010, 2088, 999, 102]


def test_a_batch(processor):
    inputs = processor(videos=[CLIP, CLIP], text=["a", "a longer prompt"])
    assert set(inputs) == set(processor.model_input_names)
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (2, 5)
    assert inputs["attention_mask"].tolist()[0] == [1, 1, 1, 0, 0]
    assert inputs["pixel_values_fragments"].shape == (2, 16, 3, 112, 112)


def test_views_or_tokens_alone(processor):
    assert set(processor(videos=CLIP)) == {"pixel_values_fragments", "pixel_values_resized"}
    assert set(processor(text="a prompt")) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    ("videos", "text", "error", "message"),
    [
        (None, None, ValueError, "nothing to process"),
        ([CLIP], ["one", "two"], ValueError, "2 prompts for 1 videos"),
        ([CLIP, CLIP], "one", ValueError, "1 prompts for 2 videos"),
        (CLIP, "", ValueError, "empty"),
        (CLIP, "   ", ValueError, "empty"),
        (CLIP, [3], TypeError, "int"),
    ],
)
def test_bad_pairs_are_refused(processor, videos, text, error, message):
    with pytest.raises(error, match=message):
        processor(videos=videos, text=text)


def test_an_unknown_option_is_refused(processor):
    with pytest.raises(TypeError, match="num_frame'"):
        processor(videos=CLIP, text="a", num_frame=3)


def test_the_empty_prompt_passes_where_no_branch_reads_it():
    processor = default_processor(AIGCVQAConfig.small(branches=["technical", "aesthetic"]))
    assert "input_ids" in processor(videos=CLIP, text="")


def test_long_prompts_warn_once_and_say_what_was_cut(processor, caplog):
    logging.enable_propagation()
    processor = AIGCVQAProcessor(processor.video_processor, processor.tokenizer)
    endings = (["unmistakable", "ending"], ["another", "ending"])
    inputs = [processor(text=" ".join(["word"] * 300 + ending)) for ending in endings]
    assert inputs[0]["input_ids"].shape == (1, 256)
    assert inputs[0]["input_ids"][0, -1] == 102, "the cut prompt still ends with [SEP]"
    warnings = [record.message for record in caplog.records if "exceeds the limit" in record.message]
    assert len(warnings) == 1
    assert "304 tokens" in warnings[0]
    assert "unmistakable ending" in warnings[0]


def test_options_reach_their_parts(processor):
    generator = torch.Generator().manual_seed(0)
    options = {"num_frames": 4, "fragment_sampling": "random", "generator": generator, "max_length": 4}
    first = processor(videos=moving_gradient(4, 300, 300), text="one two three four five", **options)
    second = processor(videos=moving_gradient(4, 300, 300), text="one two three four five", **options)
    assert first["input_ids"].shape == (1, 4)
    assert first["pixel_values_fragments"].shape[1] == 4
    assert not torch.equal(first["pixel_values_fragments"], second["pixel_values_fragments"]), "the generator moved on"


def test_save_and_load(tmp_path, processor):
    processor.save_pretrained(tmp_path)
    loaded = AIGCVQAProcessor.from_pretrained(tmp_path)
    assert loaded.requires_prompt
    assert loaded.tokenizer.model_max_length == 256
    for name, values in processor(videos=CLIP, text="a prompt").items():
        assert torch.equal(loaded(videos=CLIP, text="a prompt")[name], values)


@pytest.mark.parametrize("token", ["[PAD]", "[SEP]", "[CLS]", "[MASK]", "[UNK]", "[ENC]", "[DEC]"])
def test_names_of_tokens_in_a_prompt_are_words(processor, token):
    ids = processor(text=f"a {token} cat")["input_ids"][0]
    special = processor.tokenizer.convert_tokens_to_ids(token)
    assert special not in ids[1:-1]
    lower = processor(text=f"a {token.lower()} cat")["input_ids"][0]
    assert torch.equal(ids, lower)


@pytest.mark.parametrize("prompt", ["", " \t\n", "\u200b\u200d\ufeff", "\0\x1f", "\u2028\u3000"])
def test_prompts_without_a_visible_character_are_empty(processor, prompt):
    with pytest.raises(ValueError, match="is empty"):
        processor(text=prompt)


def test_half_a_surrogate_pair_is_refused(processor):
    with pytest.raises(ValueError, match=r"text\[1\]='b .*surrogate"):
        processor(text=["a", "b \udc80"])


LONG = {
    "words": "one two, three! " * 60_000,
    "one word": "a" * 1_000_000,
    "long words": ("x" * 150 + " y ") * 3_000,
    "spaces": "cat" + " " * 1_000_000 + "dog",
    "Chinese": "猫在公园里" * 20_000,
    "punctuation": "?!" * 50_000,
    "no spaces": "a-b_c" * 20_000,
}


@pytest.mark.parametrize("kind", LONG)
def test_long_prompts_have_the_tokens_of_their_beginning(processor, kind, caplog):
    limit = processor.tokenizer.model_max_length
    whole = processor.tokenizer(LONG[kind], truncation=True, max_length=limit)["input_ids"]
    assert processor(text=LONG[kind])["input_ids"][0].tolist() == whole
    assert all(len(record.message) < 1000 for record in caplog.records)
