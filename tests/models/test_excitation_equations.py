"""Equations 1-9 against loops, the masks' start, and how far the excitation looks in time."""

import pytest
import torch
from equations_by_loops import array, ce_mask, ste_mask
from hypothesis import given, settings
from hypothesis import strategies as st

from kinegru.errors import UsageError
from kinegru.models import ChannelExcitation, Excitation, SpatioTemporalExcitation

MODES = ["parallel", "serial", "ste", "ce", "none"]


def strong(module: torch.nn.Module) -> torch.nn.Module:
    """Weights far from their tiny start, so that an error shows."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.double()


def test_ste_is_equations_1_to_4():
    ste, x = strong(SpatioTemporalExcitation()), torch.randn(2, 4, 3, 5, 4, dtype=torch.float64)
    for n in range(2):
        mask = torch.from_numpy(ste_mask(array(x[n]), array(ste.conv.weight)[0, 0]))
        torch.testing.assert_close(ste.mask(x)[n, :, 0], mask)
        torch.testing.assert_close(ste(x)[n], x[n] + x[n] * mask[:, None])


@pytest.mark.parametrize("relu", [True, False])
def test_ce_is_equations_5_to_9(relu):
    ce, x = strong(ChannelExcitation(8, reduction=4, relu=relu)), torch.randn(2, 4, 8, 3, 2, dtype=torch.float64)
    weights = array(ce.squeeze.weight)[..., 0], array(ce.temporal.weight), array(ce.expand.weight)[..., 0]
    for n in range(2):
        mask = torch.from_numpy(ce_mask(array(x[n]), *weights, with_relu=relu))
        torch.testing.assert_close(ce.mask(x)[n, :, :, 0, 0], mask)
        torch.testing.assert_close(ce(x)[n], x[n] + x[n] * mask[:, :, None, None])


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_joined_masks_are_as_settled(mode, rescale):
    module = strong(Excitation(8, mode, rescale, reduction=2))
    x = torch.randn(2, 3, 8, 4, 4, dtype=torch.float64)
    if mode == "parallel":
        expected, scale = x * (2 + module.ste.mask(x) + module.ce.mask(x)), 3
    elif mode == "serial":
        expected, scale = module.ce(module.ste(x)), 2.25
    elif mode == "none":
        expected, scale = x, 1
    else:
        expected, scale = getattr(module, mode)(x), 1.5
    torch.testing.assert_close(module(x), expected / scale if rescale else expected)


@pytest.mark.parametrize("mode", MODES)
def test_rescaled_excitation_starts_as_the_identity(mode):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 64, 6, 6).relu()
    module = Excitation(64, mode)
    torch.testing.assert_close(module(x), x, rtol=0.01, atol=1e-4)
    for part in (module.ste, module.ce):
        if part is not None:
            assert (part.mask(x) - 0.5).abs().max() < 0.01


@pytest.mark.parametrize("shift", [0, 1])
def test_gradients_reach_every_weight_of_both_masks_at_the_start(shift):
    module = Excitation(32)  # two channels inside the channel mask: one of them lives
    module(torch.rand(2, 4, 32, 5, 5) - shift).square().mean().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


@pytest.mark.parametrize("mode", MODES)
def test_excitation_looks_exactly_its_radius_to_each_side(mode):
    module, x = strong(Excitation(32, mode, reduction=2)), torch.randn(1, 9, 32, 4, 4, dtype=torch.float64)
    other = x.clone()
    other[:, 4] += 1
    changed = (module(x) - module(other)).abs().amax(dim=(0, 2, 3, 4)) > 1e-12
    radius = {"none": 0, "serial": 2}.get(mode, 1)
    assert module.radius == radius
    assert changed.nonzero().flatten().tolist() == list(range(4 - radius, 5 + radius))


def test_parameter_counts_are_pinned():
    assert sum(p.numel() for p in SpatioTemporalExcitation().parameters()) == 27
    assert sum(p.numel() for p in ChannelExcitation(728).parameters()) == 71_595


@settings(deadline=None, max_examples=15)
@given(
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 20),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from(MODES),
)
def test_any_clip_length_and_map_size(n, t, c, h, w, mode):
    x = torch.randn(n, t, c, h, w)
    y = Excitation(c, mode)(x)
    assert y.shape == x.shape and y.isfinite().all()


def test_excitation_leaves_its_input_alone_and_keeps_half_precision():
    x = torch.randn(1, 3, 16, 4, 4)
    before = x.clone()
    Excitation(16)(x)
    assert torch.equal(x, before)
    half = Excitation(16).bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(Excitation(16)(x).float(), x, rtol=0.02, atol=0.02)


def test_unknown_mode_is_refused():
    with pytest.raises(UsageError, match="parallel, serial, ste, ce, none"):
        Excitation(8, "both")
