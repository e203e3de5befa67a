"""STAM, the STC block and late fusion against the same sums written out index by index."""

import math

import numpy as np
import pytest
import torch
from equations_by_loops import array, convolution, relu, sigmoid
from hypothesis import given, settings
from hypothesis import strategies as st

from kinegru.errors import UsageError
from kinegru.models.compared.stam import AttentionPooling
from kinegru.models.compared.stc_resnet import STCBlock
from kinegru.models.compared.streams import LateFusion, parse_streams


def fully_connected(x: list[float], layer) -> list[float]:
    weight = array(layer.weight)
    bias = np.zeros(len(weight)) if layer.bias is None else array(layer.bias)
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 3, 5]))
def test_attention_pooling_is_its_equations(steps: int, channels: int, side: int, kernel: int) -> None:
    torch.manual_seed(steps)
    pooling = AttentionPooling(channels, hidden_channels=3, kernel_size=kernel).double()
    x = torch.randn(2, steps, channels, side, side + 1).double()
    result = pooling(x)
    assert result.shape == (2, channels, 1, 1)
    for clip, found in zip(array(x), array(result), strict=True):
        v, e = [], []
        for frame in clip:
            planes = np.zeros((2, *frame.shape[1:]))
            for i, j in np.ndindex(*frame.shape[1:]):
                values = [frame[c, i, j] for c in range(channels)]
                planes[:, i, j] = sum(values) / channels, max(values)
            a = sigmoid(convolution(planes, array(pooling.gate.weight), array(pooling.gate.bias)))[0]
            v.append([sum(a[k] * frame[c][k] for k in np.ndindex(a.shape)) / a.sum() for c in range(channels)])
            hidden = [math.tanh(value) for value in fully_connected(v[-1], pooling.hidden)]
            e.append(fully_connected(hidden, pooling.score)[0])
        alpha = [math.exp(value) / sum(map(math.exp, e)) for value in e]
        expected = [sum(alpha[t] * v[t][c] for t in range(steps)) for c in range(channels)]
        np.testing.assert_allclose(found[:, 0, 0], expected, rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 6), st.integers(0, 5), st.floats(0, 300))
def test_attention_over_parts_of_a_clip_is_that_over_all_of_it(steps: int, cut: int, scale: float) -> None:
    torch.manual_seed(0)
    pooling = AttentionPooling(5, 4)
    torch.nn.init.normal_(pooling.score.weight, std=scale)
    parts = pooling.per_frame(torch.randn(2, steps, 5, 3, 3))
    state = None
    for piece in (parts[:, : min(cut, steps)], parts[:, min(cut, steps) :]):
        state = pooling.advance(piece, state) if piece.shape[1] else state
    torch.testing.assert_close(pooling.read(state), pooling.read(pooling.advance(parts)))


def test_attention_pooling_looks_at_no_order_and_even_attention_is_the_mean() -> None:
    pooling = AttentionPooling(6, 4).eval()
    x = torch.randn(2, 5, 6, 4, 4)
    torch.testing.assert_close(pooling(x.flip(1)), pooling(x))
    for parameter in (*pooling.gate.parameters(), pooling.score.weight):
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(pooling(x), x.mean(dim=(1, 3, 4))[..., None, None])
    with pytest.raises(UsageError, match="even"):
        AttentionPooling(6, 4, kernel_size=4)


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 4), st.sampled_from([2, 8, 33]), st.integers(1, 3))
def test_the_stc_block_is_its_equations(steps: int, channels: int, side: int) -> None:
    torch.manual_seed(steps)
    block = STCBlock(channels, reduction=4).double()
    x = torch.randn(2, channels, steps, side, side + 1).double()
    result = array(block(x))
    for clip, found in zip(array(x), result, strict=True):

        def mask(z: list[float], branch) -> list[float]:
            inner = relu(np.array(fully_connected(z, branch[0]))).tolist()
            return sigmoid(np.array(fully_connected(inner, branch[2]))).tolist()

        means = [[clip[c, t].mean() for c in range(channels)] for t in range(steps)]  # over space
        whole = mask([clip[c].mean() for c in range(channels)], block.temporal)  # over space and time
        for t in range(steps):
            step = mask(means[t], block.spatial)
            for c in range(channels):
                expected = clip[c, t] * (whole[c] + step[c]) / 2
                np.testing.assert_allclose(found[c, t], expected, rtol=1e-9, atol=1e-12)


def test_late_fusion_is_the_weighted_mean_of_softmaxes() -> None:
    torch.manual_seed(0)
    fusion = LateFusion([3, 5, 2], 4, weights=[1.0, 1.5, 1.0], dropout=0.0).double()
    x = torch.randn(6, 10, 2, 3).double()
    each, fused = fusion.train()(x), fusion.eval()(x).softmax(dim=1)
    assert each.shape == (6, 3, 4)
    pooled = array(x).mean(axis=(2, 3))
    for n in range(6):
        scores = np.zeros(4)
        for stream, (start, stop, weight) in enumerate([(0, 3, 1.0), (3, 8, 1.5), (8, 10, 1.0)]):
            logits = fully_connected(pooled[n, start:stop].tolist(), fusion.output[stream])
            np.testing.assert_allclose(array(each)[n, stream], logits, rtol=1e-6)
            total = sum(map(math.exp, logits))
            scores += weight / 3.5 * np.array([math.exp(value) / total for value in logits])
        np.testing.assert_allclose(array(fused)[n], scores, rtol=1e-6)


def test_late_fusion_of_one_stream_is_its_softmax_and_extremes_stay_finite() -> None:
    fusion = LateFusion([4], 3, weights=[1.0], dropout=0.0).eval()
    x = torch.randn(2, 4, 2, 2)
    torch.testing.assert_close(fusion(x).softmax(dim=1), fusion.output[0](x.mean(dim=(2, 3))).softmax(dim=1))
    logits = torch.tensor([[[500.0, -500.0], [-500.0, 500.0]]])
    fused = LateFusion([1, 1], 2, weights=[1.0, 1.5]).fuse(logits.half())
    torch.testing.assert_close(fused.softmax(dim=1), torch.tensor([[0.4, 0.6]]))


def test_streams_are_named_by_their_option() -> None:
    assert parse_streams("rgb+flow+saliency") == ["rgb", "flow", "saliency"]
    for wrong in ("", "rgb+rgb", "rgb flow", "depth", "rgb+"):
        with pytest.raises(UsageError, match=r"join rgb, flow, saliency, energy, sg3i by \+"):
            parse_streams(wrong)
