import numpy as np
import pytest
import torch

from modeling_aigcvqa.loss_aigcvqa import plcc_loss, preference_loss, quality_loss, rank_loss


def test_plcc_loss_is_half_of_one_minus_pearson():
    generator = np.random.default_rng(0)
    scores, mos = generator.normal(size=50), generator.normal(size=50)
    expected = (1 - np.corrcoef(scores, mos)[0, 1]) / 2
    assert plcc_loss(torch.tensor(scores), torch.tensor(mos)).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "expected"), [([1.0, 2.0, 3.0], 0.0), ([3.0, 2.0, 1.0], 1.0), ([2.0, 2.0, 2.0], 0.5)]
)
def test_plcc_loss_at_its_ends(scores, expected):
    assert plcc_loss(torch.tensor(scores), torch.tensor([10.0, 20.0, 30.0])).item() == pytest.approx(expected, abs=1e-6)


def test_rank_loss_worked_by_hand():
    # y = (1, 3), s = (2, 1): pairs (i, j): (1,1) 0, (2,2) 0,
    # (1,2): |y1-y2| = 2, e = -1, s1-s2 = 1 -> max(0, 2 + 1) = 3; (2,1): e = 1, s2-s1 = -1 -> 2 + 1 = 3. Sum 6 / 4.
    assert rank_loss(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 3.0])).item() == pytest.approx(1.5)


def test_rank_loss_penalises_a_difference_between_equal_labels():
    # y equal: e = 1 both ways, max(0, -(s_i - s_j)): one of the two pairs costs 2. 2 / 4.
    assert rank_loss(torch.tensor([0.0, 2.0]), torch.tensor([5.0, 5.0])).item() == pytest.approx(0.5)


def test_rank_loss_is_zero_only_with_the_margin():
    mos = torch.tensor([1.0, 2.0, 4.0])
    assert rank_loss(mos + 7, mos).item() == 0
    assert rank_loss(0.5 * mos, mos).item() > 0


def test_gradients_are_finite_for_constant_scores():
    scores = torch.zeros(4, requires_grad=True)
    quality_loss(scores, torch.tensor([1.0, 2.0, 3.0, 4.0])).backward()
    assert torch.isfinite(scores.grad).all()
    assert scores.grad.abs().sum() > 0


@pytest.mark.parametrize("loss", [plcc_loss, rank_loss])
@pytest.mark.parametrize("shapes", [((4, 1), (4,)), ((4,), (4, 1)), ((4, 1), (4, 1)), ((3,), (4,)), ((1,), (1,))])
def test_other_shapes_than_b_are_refused(loss, shapes):
    with pytest.raises(ValueError, match=r"\(B,\)|at least 2"):
        loss(torch.rand(shapes[0]), torch.rand(shapes[1]))


@pytest.mark.parametrize("margin", [0.3, 1.0, np.log(5)])
@pytest.mark.parametrize("difference", [-3.0, -0.2, 0.0, 1.5])
def test_the_probabilities_of_a_pair_add_up_to_one(margin, difference):
    a, b = torch.tensor([difference]), torch.tensor([0.0])
    losses = [preference_loss(a, b, torch.tensor([p]), margin).item() for p in (1.0, -1.0, 0.0)]
    assert sum(np.exp(-value) for value in losses) == pytest.approx(1, abs=1e-6)
    assert np.exp(-losses[0]) == pytest.approx(1 / (1 + np.exp(margin) * np.exp(-difference))), "Rao and Kupper, 1967"


def test_preference_loss_worked_by_hand():
    # d = (2, -1); A preferred, B preferred: log(1 + e^-2) and log(1 + e^-1), in Bradley and Terry's model.
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])
    expected = (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0))) / 2
    assert preference_loss(a, b, torch.tensor([1.0, -1.0]), 0.0).item() == pytest.approx(expected, abs=1e-6)


def test_preference_loss_stays_finite_and_refuses_what_it_cannot_use():
    a = torch.tensor([200.0, -200.0], requires_grad=True)
    preference_loss(a, torch.zeros(2), torch.tensor([0.0, 1.0])).backward()
    assert torch.isfinite(a.grad).all()
    with pytest.raises(ValueError, match="tie_margin=0"):
        preference_loss(torch.zeros(2), torch.zeros(2), torch.zeros(2), 0.0)
    for shape in ((2, 1), (3,), ()):
        with pytest.raises(ValueError, match=r"\(B,\)"):
            preference_loss(torch.zeros(shape), torch.zeros(2), torch.zeros(2))
