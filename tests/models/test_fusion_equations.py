"""Equations 14-20 against loops: MS-CAM, MCAM, AFF and the classifier built from them."""

import pytest
import torch
from equations_by_loops import aff, array, convolution, mcam, ms_cam, relu, spatial_mean
from hypothesis import given, settings
from hypothesis import strategies as st

from kinegru.errors import UsageError
from kinegru.models import AFF, MCAM, MSCAM, JoinedClassifier, LinearClassifier

JOINS = ["mlp", "add", "aff", "mcam_aff"]


def lived_in(module: torch.nn.Module) -> torch.nn.Module:
    """Random weights, biases and running statistics, eval mode, float64."""
    torch.manual_seed(5)
    for tensor in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())):
        torch.nn.init.normal_(tensor, std=0.4)
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    return module.double().eval()


def test_mscam_is_equation_14():
    attention, x = lived_in(MSCAM(8)), torch.randn(2, 8, 3, 4, dtype=torch.float64)
    for n in range(2):
        torch.testing.assert_close(attention(x)[n], torch.from_numpy(ms_cam(array(x[n]), attention)))


@pytest.mark.parametrize("global_branch", ["pooled_local", "separate"])
def test_mcam_is_equations_15_to_19(global_branch):
    attention = lived_in(MCAM(8, global_branch=global_branch))
    x = torch.randn(2, 8, 5, 4, dtype=torch.float64)
    for n in range(2):
        torch.testing.assert_close(attention(x)[n], torch.from_numpy(mcam(array(x[n]), attention)))


@pytest.mark.parametrize("scale", [1, 2])
def test_aff_is_equation_20(scale):
    attention = lived_in(MSCAM(8))
    x, y = torch.randn(2, 1, 8, 3, 3, dtype=torch.float64)
    expected = aff(array(x[0]), array(y[0]), lambda s: ms_cam(s, attention))
    torch.testing.assert_close(AFF(attention, scale)(x, y)[0], scale * torch.from_numpy(expected))


@pytest.mark.parametrize("on", ["maps", "vectors"])
@pytest.mark.parametrize("join", JOINS)
def test_classifier_is_fc1_fc2_join_pool_linear(join, on):
    model = lived_in(JoinedClassifier(5, 3, join, width=8, on=on))
    p = torch.randn(1, 5, 3, 4, dtype=torch.float64)
    maps = spatial_mean(array(p[0])) if on == "vectors" else array(p[0])
    x = relu(convolution(maps, array(model.fc1.weight), array(model.fc1.bias)))
    y = relu(convolution(x, array(model.fc2.weight), array(model.fc2.bias)))
    z = {
        "mlp": lambda: y,
        "add": lambda: x + y,
        "aff": lambda: aff(x, y, lambda s: ms_cam(s, model.fusion.attention)),
        "mcam_aff": lambda: aff(x, y, lambda s: mcam(s, model.fusion.attention)),
    }[join]()
    logits = array(model.output.weight) @ spatial_mean(z)[:, 0, 0] + array(model.output.bias)
    torch.testing.assert_close(model(p)[0], torch.from_numpy(logits))


def test_linear_classifier_is_pool_then_linear():
    model = lived_in(LinearClassifier(5, 3))
    p = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(model(p), model.output(p.flatten(2).mean(2)))


def test_parameter_counts_are_pinned():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    classifier = JoinedClassifier(40, 101)
    assert count(MCAM(256)) == 390_208
    assert count(MSCAM(256)) == 67_456
    assert (count(classifier.fc1), count(classifier.fc2)) == (10_496, 65_792)
    assert count(classifier) == 10_496 + 65_792 + 390_208 + 257 * 101


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 2), st.integers(1, 6), st.integers(1, 6), st.sampled_from(JOINS), st.booleans())
def test_any_map_size_also_one_clip_of_one_pixel_in_training(n, h, w, join, training):
    model = JoinedClassifier(6, 3, join, width=8).train(training)
    logits = model(torch.randn(n, 6, h, w))
    assert logits.shape == (n, 3) and logits.isfinite().all()


@pytest.mark.parametrize("join", JOINS)
def test_dropout_acts_in_training_only(join):
    model, p = JoinedClassifier(6, 3, join, width=64), torch.randn(2, 6, 4, 4)
    assert not torch.equal(model.train()(p), model(p))
    assert torch.equal(model.eval()(p), model(p))


def test_wrong_choices_are_refused():
    for wrong in (
        lambda: JoinedClassifier(4, 2, "concat"),
        lambda: JoinedClassifier(4, 2, on="pixels"),
        lambda: MCAM(8, global_branch="none"),
    ):
        with pytest.raises(UsageError):
            wrong()
