"""Equations 10-13 against loops and against torch.nn.GRU; states, steps, read-outs and the comparison models."""

import pytest
import torch
from equations_by_loops import array, conv_gru
from hypothesis import given, settings
from hypothesis import strategies as st

from kinegru.errors import UsageError
from kinegru.models import ConvGRU, FrameMean, MapRecurrence, VectorRecurrence
from kinegru.models.compared.stam import AttentionPooling

VARIANTS = ["reset_after", "reset_before"]


def example(variant="reset_after", kernel_size=3, **options) -> ConvGRU:
    torch.manual_seed(3)
    gru = ConvGRU(4, 2, kernel_size, variant, **options).double()
    torch.nn.init.normal_(gru.input_conv.bias, std=0.3)
    return gru


@pytest.mark.parametrize(("variant", "kernel_size"), [("reset_after", 5), *((v, k) for v in VARIANTS for k in (1, 3))])
def test_convgru_is_equations_10_to_13(variant, kernel_size):
    gru = example(variant, kernel_size)
    x, start = torch.randn(2, 3, 4, 4, 3, dtype=torch.float64), torch.randn(2, 2, 4, 3, dtype=torch.float64)
    for h in (None, start):
        states, last = gru(x, h)
        for n in range(2):
            expected = conv_gru(
                array(x[n]),
                array(gru.input_conv.weight),
                array(gru.input_conv.bias),
                array(gru.hidden_conv.weight),
                hidden=2,
                reset=variant,
                h=None if h is None else array(h[n]),
            )
            torch.testing.assert_close(states[n], torch.from_numpy(expected))
        assert torch.equal(last, states[:, -1])


def test_on_single_pixels_it_is_torchs_gru():
    gru = ConvGRU(5, 3, kernel_size=1).double()
    torch.nn.init.normal_(gru.input_conv.bias)
    reference = torch.nn.GRU(5, 3, batch_first=True).double()
    order = torch.tensor([3, 4, 5, 0, 1, 2, 6, 7, 8])  # torch's gates are r, z, n; ours z, r, n
    with torch.no_grad():
        reference.weight_ih_l0.copy_(gru.input_conv.weight[order, :, 0, 0])
        reference.weight_hh_l0.copy_(gru.hidden_conv.weight[order, :, 0, 0])
        reference.bias_ih_l0.copy_(gru.input_conv.bias[order])
        reference.bias_hh_l0.zero_()
    x = torch.randn(2, 7, 5, dtype=torch.float64)
    torch.testing.assert_close(gru(x[..., None, None])[0][..., 0, 0], reference(x)[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_equal_forward(variant):
    gru, x = example(variant), torch.randn(2, 6, 4, 5, 5, dtype=torch.float64)
    states, _ = gru(x)
    h = None
    for t in range(6):
        h = gru.step(x[:, t], h)
        torch.testing.assert_close(h, states[:, t])


def test_a_clip_in_two_halves_gives_the_same_states():
    gru, x = example(), torch.randn(1, 7, 4, 3, 3, dtype=torch.float64)
    first, h = gru(x[:, :3])
    second, _ = gru(x[:, 3:], h)
    torch.testing.assert_close(torch.cat([first, second], dim=1), gru(x)[0])


def test_initial_weights_are_xavier_orthogonal_and_zero():
    gru = ConvGRU(16, 6, update_bias_init=1.5)
    bound = (6 / ((16 + 6) * 9)) ** 0.5  # Xavier, each gate a convolution 16 -> 6 of its own
    assert 0.9 * bound < gru.input_conv.weight.abs().max() <= bound
    for gate in gru.hidden_conv.weight.chunk(3):
        rows = gate.flatten(1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(6), atol=1e-5, rtol=0)
    assert gru.input_conv.bias.tolist() == [1.5] * 6 + [0.0] * 12
    assert ConvGRU(16, 6).input_conv.bias.abs().max() == 0 and gru.hidden_conv.bias is None


def test_parameter_count_is_pinned():
    assert sum(p.numel() for p in ConvGRU(2048, 40).parameters()) == 2_255_160


def test_state_stays_float32_under_autocast():
    gru, x = ConvGRU(4, 2), torch.randn(1, 3, 4, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        states, last = gru(x)
        stepped = gru.step(x[:, 0], None)
    assert states.dtype == last.dtype == stepped.dtype == torch.float32
    torch.testing.assert_close(states, gru(x)[0], atol=0.03, rtol=0)
    assert ConvGRU(4, 2).bfloat16()(x.bfloat16())[0].dtype == torch.float32


@settings(deadline=None, max_examples=15)
@given(
    st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.sampled_from(["last", "mean", "max"])
)
def test_any_clip_length_and_map_size(n, t, h, w, readout):
    x = torch.randn(n, t, 4, h, w)
    for differences in (False, True):
        assert MapRecurrence(4, 3, readout=readout, differences=differences)(x).shape == (n, 3, h, w)
        for kind in ("lstm", "gru"):
            assert VectorRecurrence(kind, 4, 3, readout, differences)(x).shape == (n, 3, 1, 1)
    torch.testing.assert_close(FrameMean(4)(x), sum(x[:, i] for i in range(t)) / t)


READ = {
    "last": lambda states: states[:, -1],
    "mean": lambda states: states.sum(1) / states.shape[1],
    "max": lambda states: states.max(1).values,
}


def beside_differences(x):
    """x_t and x_t - x_(t-1), the first difference being zero."""
    return torch.cat([x, torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:] - x[:, :-1]], dim=1)], dim=2)


@pytest.mark.parametrize("readout", READ)
@pytest.mark.parametrize("differences", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_map_recurrence_is_projection_differences_convgru_and_readout(readout, differences, variant):
    model = MapRecurrence(6, 3, 3, readout, variant, 0.5, differences, projection=4).double()
    x = torch.randn(2, 5, 6, 4, 3, dtype=torch.float64)
    y = torch.stack([model.projection(x[:, t]) for t in range(5)], dim=1)
    states, _ = model.convgru(beside_differences(y) if differences else y)
    torch.testing.assert_close(model(x), READ[readout](states))


@pytest.mark.parametrize("readout", READ)
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_vector_recurrence_is_pooling_differences_and_readout(readout, kind):
    model, x = VectorRecurrence(kind, 4, 3, readout, differences=True), torch.randn(2, 5, 4, 3, 3)
    states, _ = model.rnn(beside_differences(x.mean(dim=(3, 4))))
    torch.testing.assert_close(model(x)[..., 0, 0], READ[readout](states))


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.sampled_from(["convgru", "lstm", "gru", "mean", "attention"]),
    st.sampled_from(["last", "mean", "max"]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_frames_in_pieces_give_what_the_whole_clip_gives(pieces, kind, readout, differences, seed):
    torch.manual_seed(seed)
    if kind == "convgru":
        model = MapRecurrence(4, 3, readout=readout, differences=differences).double()
    elif kind == "mean":
        model = FrameMean(4).double()
    elif kind == "attention":
        model = AttentionPooling(4, 3).double()
    else:
        model = VectorRecurrence(kind, 4, 3, readout, differences).double()
    x = torch.randn(2, sum(pieces), 4, 3, 3, dtype=torch.float64)
    state = None
    for piece in x.split(pieces, dim=1):
        state = model.advance(model.per_frame(piece), state)
    assert state.frames.tolist() == [sum(pieces)] * 2
    torch.testing.assert_close(model.read(state), model(x))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_vector_models_see_pooled_maps_only(kind):
    model, x = VectorRecurrence(kind, 4, 3, readout="last"), torch.randn(2, 5, 4, 3, 3)
    shuffled = x.flatten(3)[..., torch.randperm(9)].unflatten(3, (3, 3))
    torch.testing.assert_close(model(shuffled), model(x))
    states, _ = model.rnn(x.mean(dim=(3, 4)))
    torch.testing.assert_close(model(x)[..., 0, 0], states[:, -1])


def test_wrong_choices_are_refused():
    for wrong in (
        lambda: ConvGRU(4, 2, kernel_size=2),
        lambda: ConvGRU(4, 2, variant="reset"),
        lambda: MapRecurrence(4, 2, readout="first"),
        lambda: VectorRecurrence("rnn", 4),
    ):
        with pytest.raises(UsageError):
            wrong()
