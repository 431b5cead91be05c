import pytest

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQATechnicalConfig


def test_defaults_are_the_full_size_architecture():
    config = AIGCVQAConfig()
    assert config.branches == ["technical", "aesthetic", "alignment"]
    assert tuple(config.technical_config.depths) == (2, 2, 6, 2)
    assert tuple(config.aesthetic_config.depths) == (3, 3, 9, 3)
    assert config.alignment_config.vision_num_hidden_layers == 24
    assert config.alignment_config.text_num_attention_heads == 12


def test_round_trip_through_a_folder(tmp_path):
    config = AIGCVQAConfig.small(branches=["alignment", "technical"], rank_loss_weight=0.3)
    config.save_pretrained(tmp_path)
    assert AIGCVQAConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert config.branches == ["technical", "alignment"], "kept in the order of the branches"


def test_sub_configs_are_taken_as_objects_too():
    config = AIGCVQAConfig(technical_config=AIGCVQATechnicalConfig(embed_dim=48))
    assert config.technical_config.embed_dim == 48


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"branches": ["sharpness"]}, "branches"),
        ({"branches": []}, "branches"),
        ({"branches": "technical"}, "branches"),
        ({"plcc_loss_weight": "much"}, "plcc_loss_weight"),
        ({"rank_loss_weight": -1.0}, "rank_loss_weight"),
        ({"technical_config": 3}, "technical_config"),
        ({"technical_config": {"depth": [2]}}, "depth"),
        ({"technical_config": {"depths": "2-2-6-2"}}, "depths"),
        ({"technical_config": {"num_heads": [5, 6, 12, 24]}}, "num_heads"),
        ({"technical_config": {"num_heads": [3, 6]}}, "num_heads"),
        ({"technical_config": {"window_size": [8, 0, 7]}}, "window_size"),
        ({"technical_config": {"drop_path_rate": 1.5}}, "drop_path_rate"),
        ({"aesthetic_config": {"hidden_sizes": [96]}}, "hidden_sizes"),
        ({"aesthetic_config": {"temporal_kernel_sizes": [1, 2, 1]}}, "temporal_kernel_sizes"),
        ({"alignment_config": {"image_size": 225}}, "image_size"),
        ({"alignment_config": {"adapter": "lora"}}, "adapter"),
        ({"alignment_config": {"text_num_attention_heads": 7}}, "text_num_attention_heads"),
        ({"alignment_config": {"head_dropouts": [0.1]}}, "head_dropouts"),
        ({"alignment_config": {"adapter_kernel_size": [3, 3]}}, "adapter_kernel_size"),
    ],
)
def test_bad_fields_are_refused_by_name(fields, named):
    with pytest.raises(Exception, match=named) as error:
        AIGCVQAConfig(**fields)
    assert "Error" in type(error.value).__name__
