"""Mix-up and rates of parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import build, fit_tiny
from torch.nn import functional as F

from kinegru.errors import UsageError
from kinegru.training.mixup import mix_clips
from kinegru.training.optimizer import make_optimizer
from kinegru.training.settings import TrainSettings


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 9), st.floats(0.05, 3.0), st.integers(0, 2**31))
def test_every_clip_keeps_at_least_half_of_itself(clips: int, alpha: float, seed: int) -> None:
    torch.manual_seed(seed)
    mixed, others, share = mix_clips(torch.eye(clips), torch.arange(clips), alpha)
    assert 0.5 <= share <= 1
    expected = share * F.one_hot(torch.arange(clips), clips) + (1 - share) * F.one_hot(others, clips)
    torch.testing.assert_close(mixed, expected.float())
    assert sorted(others.tolist()) == list(range(clips))


def test_without_mixup_nothing_is_drawn_or_changed() -> None:
    inputs, targets = torch.rand(4, 3), torch.arange(4)
    before = torch.get_rng_state()
    mixed, others, share = mix_clips(inputs, targets, 0.0)
    assert mixed is inputs and others is targets and share == 1.0
    assert torch.equal(torch.get_rng_state(), before)


def test_training_on_blends_is_the_same_twice_and_another_than_without(clips: Path, tmp_path: Path) -> None:
    runs = [fit_tiny(clips, tmp_path / str(n), tiny.settings(mixup=alpha)) for n, alpha in enumerate((0.0, 0.4, 0.4))]
    plain, mixed, again = ([row.train_loss for row in result.history] for _, result in runs)
    assert mixed == again != plain


def test_encoder_rate_is_a_factor_of_the_encoders_parameters_only() -> None:
    model = build(tiny.settings(profile="full"))
    slow, fast = make_optimizer(model, tiny.settings(encoder_rate=0.1)).param_groups
    assert (slow["factor"], fast["factor"]) == (0.1, 1.0)
    assert {id(p) for p in slow["params"]} == {id(p) for p in model.encoder.parameters()}
    assert len(slow["params"]) + len(fast["params"]) == len(list(model.parameters()))
    assert len(make_optimizer(model, tiny.settings()).param_groups) == 1


def test_encoder_rate_of_zero_leaves_the_encoder_as_it_was(clips: Path, tmp_path: Path) -> None:
    chosen = tiny.settings(profile="full", epochs=1, encoder_rate=0.0)
    start = {name: p.detach().clone() for name, p in build(chosen).named_parameters()}
    model, _ = fit_tiny(clips, tmp_path / "run", chosen)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, start[name])}
    assert changed and not any(name.startswith("encoder.") for name in changed)


@pytest.mark.parametrize("name", ["mixup", "encoder_rate"])
def test_negative_values_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="must be 0 or more"):
        TrainSettings(**{name: -0.1})
