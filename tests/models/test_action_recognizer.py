"""Profiles, frozen parts, gradients, caches: what the composition promises to training and to live use."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinegru.errors import UsageError

PROFILES = ["head", "tail", "full"]
FROZEN = {"head": ("encoder.",), "tail": ("encoder.trunk.",), "full": ()}


def snapshot(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def train_step(model, frames, rate=0.1):
    optimizer = torch.optim.SGD(model.trained_parameters(), lr=rate)
    loss = torch.nn.functional.cross_entropy(model(frames), torch.arange(len(frames)) % model.num_classes)
    loss.backward()
    optimizer.step()


VARIETY = [
    {"excitation": "serial", "variant": "reset_before", "classifier": "aff", "readout": "mean", "differences": True},
    {"temporal": "lstm", "classifier": "add", "readout": "max"},
    {"temporal": "gru", "classifier": "mlp", "differences": True, "classifier_on": "vectors"},
    {"temporal": "mean", "classifier": "linear", "excitation": "ce"},
    {"attention_global": "separate", "aff_scale": 2.0, "excitation": "ste"},
]


@pytest.mark.parametrize(("profile", "options"), [*((p, {}) for p in PROFILES), *(("full", o) for o in VARIETY)])
def test_gradients_reach_every_trained_parameter_and_no_frozen_one(small, profile, options):
    model = small(**options).set_profile(profile).train()
    model(torch.rand(3, 3, 3, 64, 64)).square().sum().backward()
    for name, parameter in model.named_parameters():
        if name.startswith(FROZEN[profile]):
            assert not parameter.requires_grad and parameter.grad is None, name
        elif re.search(r"(local|global)_branch\.[03]\.bias", name):  # MS-CAM's, before a batch norm: zero by definition
            assert parameter.requires_grad and parameter.grad is not None, name
        else:
            assert parameter.requires_grad and parameter.grad is not None and parameter.grad.abs().max() > 0, name
    names = {id(p): n for n, p in model.named_parameters()}
    assert [names[id(p)] for p in model.trained_parameters()] == [
        n for n, p in model.named_parameters() if p.requires_grad
    ]


@pytest.mark.parametrize("temporal", ["convgru", "lstm"])
def test_mixed_precision_trains(small, temporal):
    model = small(temporal=temporal, differences=True).train()
    frames = torch.rand(2, 3, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model.from_cache(model.cacheable(frames))
        direct = model(frames)
    mixed.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.trained_parameters())
    torch.testing.assert_close(mixed, direct, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_training_step_changes_no_frozen_weight_or_statistic(small, weights_file, profile):
    model = small(backbone_weights=str(weights_file)).set_profile(profile).train()
    before = snapshot(model)
    train_step(model, torch.rand(4, 3, 3, 64, 64))
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert not any(key.startswith(FROZEN[profile]) for key in changed if FROZEN[profile])
    assert any(key.startswith("temporal.") for key in changed)
    assert any(key.startswith("encoder.neck.") for key in changed) == (profile != "head")
    assert any(key.startswith("encoder.trunk.") for key in changed) == (profile == "full")
    # pretrained batch norms keep their statistics while their scale and shift train
    statistics = [key for key in changed if key.startswith("encoder.") and "running" in key]
    assert statistics == []
    if profile != "head":
        assert {"encoder.neck.tail.bn2.weight", "encoder.neck.tail.bn2.bias"} <= changed


def test_batch_norms_without_pretrained_statistics_work_as_usual(small, weights_file):
    for options in ({}, {"backbone_weights": str(weights_file), "freeze_tail_bn": False}):
        model = small(**options).set_profile("tail").train()
        before = snapshot(model)
        model(torch.rand(2, 3, 3, 64, 64))
        key = "encoder.neck.tail.bn2.running_mean"
        assert not torch.equal(model.state_dict()[key], before[key])


def test_frozen_parts_stay_in_eval_mode_through_train(small, weights_file):
    model = small(backbone_weights=str(weights_file))
    for profile in PROFILES:
        model.set_profile(profile).eval().train()
        assert model.encoder.trunk.training == (profile == "full")
        assert model.encoder.neck.training == (profile != "head")
        assert model.classifier.training and model.temporal.training
        norms = [m for m in model.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert norms and not any(m.training for m in norms)
    assert not any(m.training for m in model.eval().modules())


def test_a_profile_can_be_changed_back(small):
    model = small()
    trained = [sum(p.numel() for p in model.set_profile(p).trained_parameters()) for p in (*PROFILES, "head")]
    assert trained[0] < trained[1] < trained[2] and trained[3] == trained[0]
    with pytest.raises(UsageError, match="head, tail, full"):
        model.set_profile("body")


@pytest.mark.parametrize(("profile", "stage"), [("head", "neck"), ("tail", "trunk")])
@pytest.mark.parametrize("training", [True, False])
def test_forward_equals_from_cache(small, profile, stage, training):
    model = small(dropout=0.0).set_profile(profile).train(training)
    frames = torch.rand(2, 5, 3, 64, 64)
    maps = model.cacheable(frames)
    assert model.cache_stage == stage and not maps.requires_grad
    torch.testing.assert_close(model.from_cache(maps), model(frames))
    torch.testing.assert_close(model.from_cache(maps.half()), model(frames), atol=0.02, rtol=0.02)
    shape = (2, 5, 48, 4, 4) if stage == "trunk" else (2, 5, 1280, 2, 2)
    assert maps.shape == shape


def test_gradients_from_the_cache_equal_those_without(small):
    model = small()
    frames = torch.rand(2, 4, 3, 64, 64)
    model(frames).sum().backward()
    gradients = [p.grad.clone() for p in model.trained_parameters()]
    model.zero_grad()
    model.from_cache(model.cacheable(frames)).sum().backward()
    for parameter, gradient in zip(model.trained_parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-4)


def test_profile_full_has_nothing_to_cache(small):
    model = small().set_profile("full")
    assert model.cache_stage is None and model.cache_fingerprint() == ""
    for call in (model.cacheable, model.from_cache):
        with pytest.raises(UsageError, match="nothing of it can be cached"):
            call(torch.rand(1, 1, 3, 64, 64))


def test_forward_is_head_of_neck_of_trunk(small):
    model, frames = small().eval(), torch.rand(2, 11, 3, 64, 64)
    torch.testing.assert_close(model(frames), model.head(model.neck(model.trunk(frames))))
    one_by_one = torch.stack([model.encoder.trunk(frame[None])[0] for frame in frames.flatten(0, 1)])
    torch.testing.assert_close(model.trunk(frames).flatten(0, 1), one_by_one, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="expected"):
        model(frames[0])


def test_frames_can_be_explained_although_the_trunk_is_frozen(small):
    frames = torch.rand(1, 2, 3, 64, 64, requires_grad=True)
    small().eval()(frames).sum().backward()
    assert frames.grad.abs().max() > 0


@settings(deadline=None, max_examples=10)
@given(
    st.integers(1, 2),
    st.integers(1, 5),
    st.integers(33, 90),
    st.sampled_from(["convgru", "lstm", "gru", "mean"]),
    st.booleans(),
)
def test_any_clip_length_and_frame_size(small, n, t, size, temporal, training):
    model = small(temporal=temporal, differences=temporal != "mean", classifier="mcam_aff").train(training)
    logits = model(torch.rand(n, t, 3, size, size))
    assert logits.shape == (n, 4) and logits.isfinite().all()


def test_one_frame_trains_all_but_what_needs_two(small):
    model = small(differences=True).train()
    model(torch.rand(3, 1, 3, 64, 64)).square().sum().backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and not p.grad.abs().max() > 0]
    assert idle == ["temporal.convgru.hidden_conv.weight"]
    half = model.encoder.out_channels
    assert model.temporal.convgru.input_conv.weight.grad[:, half:].abs().max() == 0


def test_fingerprint_follows_the_frozen_weights_only(small, weights_file):
    model = small(backbone_weights=str(weights_file))
    tail = model.set_profile("tail").cache_fingerprint()
    head = model.set_profile("head").cache_fingerprint()
    assert len(tail) == 64 and tail != head
    other = small(backbone_weights=str(weights_file), hidden_channels=9, classifier="mlp", excitation="none")
    assert other.cache_fingerprint() == tail  # the trunk is the same
    train_step(model.set_profile("tail").train(), torch.rand(2, 2, 3, 64, 64))
    assert model.cache_fingerprint() == tail
    assert model.set_profile("head").cache_fingerprint() != head
    with torch.no_grad():
        model.encoder.trunk.conv_stem.weight[0, 0, 0, 0] += 1e-3
    assert model.set_profile("tail").cache_fingerprint() != tail


def test_reset_classifier_replaces_the_last_layer_only(small):
    model = small()
    before = snapshot(model)
    model.reset_classifier(9)
    changed = {k for k, v in model.state_dict().items() if k not in before or v.shape != before[k].shape}
    assert changed == {"classifier.output.weight", "classifier.output.bias"}
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items() if k not in changed)
    assert model.num_classes == 9 and model(torch.rand(1, 2, 3, 64, 64)).shape == (1, 9)
