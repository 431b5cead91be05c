"""Averaging the weights of several trainings."""

import pytest
import torch

from modeling_aigcvqa import load_model
from modeling_aigcvqa.common.presets import default_processor
from modeling_aigcvqa.provenance_aigcvqa import Provenance, Source
from tests.conftest import save_model_folder
from tests.training.tiny import tiny_model
from training.average_models import average_config, main


@pytest.fixture
def models(tmp_path):
    """Two trainings of one model: all weights of the second are larger by 1."""
    folders = []
    for number in range(2):
        model = tiny_model()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += number
        model.config.mos_mean, model.config.technical_config.score_scale = 50.0 + number, 1.0 + number
        processor = default_processor(model.config, num_frames=4)
        folders.append(str(save_model_folder(model, processor, tmp_path / str(number))))
    return folders


def test_weights_and_scales_are_averaged(models, tmp_path):
    assert main(["--models", *models, "--output", str(tmp_path / "average")]) == 0
    average, first = load_model(str(tmp_path / "average"))[0], load_model(models[0])[0]
    for name, value in first.named_parameters():
        torch.testing.assert_close(average.get_parameter(name), value + 0.5)
    assert average.config.mos_mean == 50.5
    assert average.config.technical_config.score_scale == 1.5


def test_the_average_of_a_model_with_itself_is_the_model(models, tmp_path):
    assert main(["--models", models[0], models[0], "--output", str(tmp_path / "average")]) == 0
    average, first = load_model(str(tmp_path / "average"))[0], load_model(models[0])[0]
    assert all(torch.equal(average.state_dict()[name], value) for name, value in first.state_dict().items())
    assert average.config.to_dict() | {"_name_or_path": ""} == first.config.to_dict() | {"_name_or_path": ""}


def test_other_models_are_refused(models, tmp_path, capsys):
    other = tiny_model(branches=["technical"])
    folder = save_model_folder(other, default_processor(other.config, num_frames=4), tmp_path / "other")
    assert main(["--models", models[0], str(folder), "--output", str(tmp_path / "average")]) == 2
    assert "differ" in capsys.readouterr().err
    assert main(["--models", models[0], "--output", str(tmp_path / "average")]) == 2
    assert not (tmp_path / "average").exists()


def test_models_from_other_published_weights_are_refused(models):
    """Their licences would be lost."""
    first, second = (load_model(name)[0].config for name in models)
    source = Source(branches=["technical"], name="DOVER", address="a", license="b", sha256="c", commercial_use=False)
    second.set_provenance(Provenance(sources=[source]))
    with pytest.raises(ValueError, match="the sources of the models differ"):
        average_config([first, second])
