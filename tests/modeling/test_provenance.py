"""Where weights come from: what a config says of it, and the note that follows."""

import pytest

from modeling_aigcvqa import AIGCVQAConfig
from modeling_aigcvqa.common.presets import untrained_model
from modeling_aigcvqa.provenance_aigcvqa import Provenance, Run, Source

BRANCHES = ["technical", "aesthetic", "alignment"]


def source(branch, name, commercial_use=True, license="MIT"):
    return Source(branches=[branch], name=name, address="a", license=license, sha256="0", commercial_use=commercial_use)


def run(stage, branches, **details):
    return Run(stage=stage, branches=branches, data="clips", **details)


CONVERTED = Provenance(
    sources=[source("technical", "FAST-VQA"), source("aesthetic", "ConvNeXt-T"), source("alignment", "ImageReward")],
    untrained=["aesthetic_head", "alignment_adapter"],
)


def test_the_note_follows_what_was_trained():
    assert "untrained (random)" in untrained_model("small").config.weights_note
    note = CONVERTED.note(BRANCHES)
    assert "Assembled from published weights (FAST-VQA, ConvNeXt-T, ImageReward)" in note
    assert "Head not trained yet, so that the score says nothing: aesthetic." in note
    after = CONVERTED.with_run(run("stage1", ["technical", "aesthetic"]))
    assert "Head" not in after.note(BRANCHES)
    assert after.note(BRANCHES) == "Published weights, not trained on AI-generated video: alignment (ImageReward)."
    assert after.note(["technical"]) is None
    assert after.with_run(run("stage2", ["alignment"], unfixed_ratio=0.7)).note(BRANCHES) is None


def test_a_backbone_counts_as_trained_once_all_of_it_was():
    random = Provenance(untrained=["alignment_backbone", "alignment_head", "alignment_adapter"])
    partly = random.with_run(run("stage2", ["alignment"], unfixed_ratio=0.7))
    assert partly.untrained == ["alignment_backbone"]
    assert random.with_run(run("stage2", ["alignment"], unfixed_ratio=1.0)).untrained == []


def test_a_restriction_stays_through_every_run():
    dover = Provenance(sources=[source("technical", "DOVER", commercial_use=False, license="S-Lab License 1.0")])
    for stage in ("stage1", "stage3"):
        dover = dover.with_run(run(stage, BRANCHES))
    assert not dover.commercial_use
    assert dover.note(BRANCHES) == "NON-COMMERCIAL use only (S-Lab License 1.0)."
    assert not CONVERTED.merged(dover).commercial_use
    assert CONVERTED.merged(dover).of_branches(["alignment"]).commercial_use, "no branch of it is left"


def test_simulated_opinions_are_no_human_ones():
    simulated = Provenance().with_run(run("stage3", BRANCHES, simulated=True))
    assert "not human opinion" in simulated.note(BRANCHES)
    assert simulated.with_run(run("stage3", BRANCHES)).note(BRANCHES) is None, "people's opinions came in"


def test_the_publishers_own_words_and_the_scale():
    config = AIGCVQAConfig.small(mos_mean=50.0, mos_std=15.5)
    config.set_provenance(Provenance(caveat="A test.", runs=[run("stage3", BRANCHES, labels={"quality": "mos"})]))
    assert config.weights_note == (
        "A test. Quality is on the scale of the training labels, whose mean is 50 and deviation 15.5."
    )


def test_it_survives_files(tmp_path):
    config = AIGCVQAConfig.small()
    config.set_provenance(CONVERTED.with_run(run("stage1", ["technical"], labels={"technical": "mos"})))
    config.save_pretrained(tmp_path)
    assert AIGCVQAConfig.from_pretrained(tmp_path).get_provenance() == config.get_provenance()
    assert AIGCVQAConfig.small().provenance is None and AIGCVQAConfig.small().weights_note is None


def test_a_note_of_an_old_config_is_kept():
    assert AIGCVQAConfig(weights_note="Not for sale.").weights_note == "Not for sale."


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"runs": [{"stage": "stage1", "data": "d"}]}, "branches"),
        ({"sauces": []}, "sauces"),
        ({"sources": [{**vars(CONVERTED.sources[0]), "branches": "technical"}]}, "expected a list"),
        ({"untrained": "technical_head"}, "expected a list"),
        ({"runs": [3]}, "mapping"),
    ],
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(ValueError, match=f"provenance: .*{message}"):
        AIGCVQAConfig(provenance=values)
