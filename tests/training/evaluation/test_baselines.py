"""Tests of the baselines on tiny random weights in the real file formats, compared with independent computations."""

import math

import numpy as np
import pytest
import torch
from transformers import (
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
)

from modeling_aigcvqa import AIGCVQAModel, AIGCVQAProcessor
from modeling_aigcvqa.common.presets import default_tokenizer, save_model_folder
from modeling_aigcvqa.conversion.formats import DOVER
from modeling_aigcvqa.loading import load_pipeline
from modeling_aigcvqa.protocols_aigcvqa import sample_frame_indices
from modeling_aigcvqa.video_reading_aigcvqa import read_video
from tests.training.evaluation.evaluation_data import make_data_set
from training.common.clips import load_clips
from training.evaluate import main
from training.evaluation.baselines import BASELINES, baseline_scorer
from training.evaluation.baselines.frame_models import NUM_FRAMES

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SIZES, "image_size": 32, "patch_size": 16}
BROKEN = "000-basalt"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Three clips. The second file is not a video."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        data = make_data_set(tmp_path_factory.mktemp("data"), broken=BROKEN)
        yield load_clips(str(data), part="test").select([0, 1, 4])


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A CLIP model for images of 32 x 32 pixels, with a vocabulary of letters."""
    folder, letters = tmp_path_factory.mktemp("clip"), "abcdefghijklmnopqrstuvwxyz"
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: index for index, token in enumerate(vocabulary)}, merges=[])
    text = {**SIZES, "vocab_size": len(vocabulary), "max_position_embeddings": 20}
    text |= {"bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def blip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blip")
    tokenizer = default_tokenizer(32)
    text = {**SIZES, "encoder_hidden_size": 32, "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    torch.manual_seed(1)
    config = BlipConfig(text_config=text, vision_config=VISION, image_text_hidden_size=16)
    model = BlipForImageTextRetrieval(config)
    with torch.no_grad():
        for parameter in model.parameters():  # with the initial weights all probabilities are equal
            parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dover_folder(small_model, processor, tmp_path_factory):
    """The small model with DOVER's constants in its config, as in a converted folder."""
    model = AIGCVQAModel(small_model.config.__class__.from_dict(small_model.config.to_dict()))
    model.load_state_dict(small_model.state_dict())
    for branch, (scale, shift) in DOVER.affine.items():
        part = getattr(model.config, f"{branch}_config")
        part.score_scale, part.score_shift = scale, shift
    return save_model_folder(model, processor, tmp_path_factory.mktemp("dover"))


def scores_of(name, folder, clips, **options):
    scorer = baseline_scorer(name, str(folder), device="cpu", **options)
    results = list(scorer.score(clips))
    assert scorer.score_names == (name,)
    assert "0-basalt.mp4" in results[1]["error"], "an unreadable file does not stop the run"
    assert [set(results[index]) for index in (0, 2)] == [{name}] * 2
    return [results[index][name] for index in (0, 2)]


def frames_of(row):
    frames, _ = read_video(row["video"], lambda total: sample_frame_indices(total, NUM_FRAMES))
    return list(frames.numpy())


def test_clipsim_is_the_mean_cosine_of_frames_and_prompt(clip_folder, clips):
    model, processor = CLIPModel.from_pretrained(clip_folder).eval(), CLIPProcessor.from_pretrained(clip_folder)
    scores = scores_of("clipsim", clip_folder, clips, batch_size=3)
    for score, row in zip(scores, (clips[0], clips[2])):
        assert len(processor.tokenizer(row["prompt"])["input_ids"]) > 20, "the prompt is truncated"
        inputs = processor(
            images=frames_of(row), text=row["prompt"], return_tensors="pt", truncation=True, max_length=20
        )
        with torch.no_grad():
            logits = model(**inputs).logits_per_image / model.logit_scale.exp()
        assert logits.shape == (NUM_FRAMES, 1)
        assert score == pytest.approx(logits.mean().item(), abs=1e-5)
    assert abs(scores[0] - scores[1]) > 1e-4


def test_blip_is_the_mean_probability_of_a_match(blip_folder, clips):
    model, processor = (c.from_pretrained(blip_folder) for c in (BlipForImageTextRetrieval, BlipProcessor))
    scores = scores_of("blip", blip_folder, clips, batch_size=3)
    for score, row in zip(scores, (clips[0], clips[2])):
        probabilities = []
        for frame in frames_of(row):
            inputs = processor(images=frame, text=row["prompt"], return_tensors="pt")
            with torch.no_grad():
                probabilities.append(model.eval()(**inputs).itm_score.softmax(1)[0, 1].item())
        assert score == pytest.approx(np.mean(probabilities), abs=1e-5)
    assert abs(scores[0] - scores[1]) > 1e-4


def test_fast_vqa_is_the_technical_branch_with_its_sampling(model_folder, clips):
    score, _ = scores_of("fast_vqa", model_folder, clips)
    pipeline = load_pipeline(str(model_folder), ["technical"], device="cpu")
    assert score == pytest.approx(pipeline(clips[0], protocol="fast_vqa")["technical_score"], abs=1e-5)
    assert score != pytest.approx(pipeline(clips[0])["technical_score"], abs=1e-5)


def test_dover_is_its_fusion(dover_folder, clips):
    score, _ = scores_of("dover", dover_folder, clips)
    pipeline = load_pipeline(str(dover_folder), ["technical", "aesthetic"], device="cpu")
    for branch in ("technical", "aesthetic"):  # raw means
        part = getattr(pipeline.model.config, f"{branch}_config")
        part.score_scale, part.score_shift = 1.0, 0.0
    raw = pipeline(clips[0], protocol="dover")
    fused = 0.6104 * (raw["technical_score"] - 0.1107) / 0.07355
    fused += 0.3896 * (raw["aesthetic_score"] + 0.08285) / 0.03774
    assert score == pytest.approx(1 / (1 + math.exp(-fused)), abs=1e-5)


def test_dover_needs_dovers_constants(model_folder):
    with pytest.raises(ValueError, match=r"score_scale=1\.0.*--preset dover"):
        baseline_scorer("dover", str(model_folder), device="cpu")


def test_image_reward_has_no_adapter_and_takes_frame_by_frame(model_folder, small_model, clips):
    scores = scores_of("image_reward", model_folder, clips, batch_size=2)
    config = small_model.config.to_dict()
    config["branches"], config["alignment_config"]["adapter"] = ["alignment"], None
    plain = AIGCVQAModel(small_model.config.__class__.from_dict(config)).eval()
    plain.load_state_dict(small_model.state_dict(), strict=False)
    processor = AIGCVQAProcessor.from_pretrained(model_folder)
    for score, row in zip(scores, (clips[0], clips[2])):
        inputs = processor(videos=[row["video"]], text=row["prompt"], protocol="image_reward")
        with torch.no_grad():
            expected = plain(**inputs).alignment_score.item()
            adapted = small_model(**inputs).alignment_score.item()
        assert score == pytest.approx(expected, abs=1e-5)
        assert score != pytest.approx(adapted, abs=1e-5)


@pytest.mark.parametrize("name", ["blip", "clipsim"])
def test_weights_of_another_model_are_refused(name, model_folder):
    with pytest.raises(ValueError, match="model of type 'aigcvqa', not"):
        baseline_scorer(name, str(model_folder))


def test_an_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match="expected one of"):
        baseline_scorer("niqe", "folder")
    assert set(BASELINES) == {"fast_vqa", "dover", "image_reward", "blip", "clipsim", "viclip", "umtscore"}


def test_a_clip_without_prompt_is_an_error(clip_folder, clips):
    row = clips.select([0]).map(lambda row: {"prompt": " "})
    assert list(baseline_scorer("clipsim", str(clip_folder), device="cpu").score(row)) == [
        {"error": "the clip has no prompt, but this baseline compares frames with the prompt."}
    ]


def test_a_baseline_is_evaluated_like_a_model(clip_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    data = make_data_set(tmp_path / "data")
    arguments = ["--baseline", "clipsim", "--model", str(clip_folder), "--device", "cpu", "--prompt_swap"]
    assert main([*arguments, "--data", str(data), "--output", str(tmp_path / "out"), "--num_bootstrap", "0"]) == 0
    assert "| clipsim |" in capsys.readouterr().out
    assert "clipsim is higher with the right prompt" in (tmp_path / "out" / "report.md").read_text()
