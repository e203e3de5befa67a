"""The paper's equations once more, slowly: float64 and loops over every index, independent of torch's operators."""

from __future__ import annotations

import itertools
import math

import numpy as np


def array(tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda v: 1 / (1 + math.exp(-v)))(x)


def relu(x: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda v: max(v, 0.0))(x)


def convolution(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """x (C, *space), weight (O, C, *kernel), odd kernels, zeros beyond the border; space of any number of axes."""
    outputs, space, kernel = weight.shape[0], x.shape[1:], weight.shape[2:]
    y = np.zeros((outputs, *space))
    for o in range(outputs):
        for place in itertools.product(*map(range, space)):
            total = 0.0 if bias is None else bias[o]
            for c in range(x.shape[0]):
                for tap in itertools.product(*map(range, kernel)):
                    at = [p + k - size // 2 for p, k, size in zip(place, tap, kernel, strict=True)]
                    if all(0 <= a < size for a, size in zip(at, space, strict=True)):
                        total += weight[(o, c, *tap)] * x[(c, *at)]
            y[(o, *place)] = total
    return y


def batch_norm(x: np.ndarray, norm) -> np.ndarray:
    """x (C, h, w) with running statistics."""
    mean, variance, scale, shift = map(array, (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    y = np.zeros_like(x)
    for c, i, j in np.ndindex(*x.shape):
        y[c, i, j] = (x[c, i, j] - mean[c]) / math.sqrt(variance[c] + norm.eps) * scale[c] + shift[c]
    return y


def spatial_mean(x: np.ndarray) -> np.ndarray:
    """(C, h, w) -> (C, 1, 1)."""
    return np.array([sum(x[c].ravel().tolist()) / x[c].size for c in range(x.shape[0])])[:, None, None]


def ste_mask(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """One clip (T, C, h, w), kernel (3, 3, 3) -> (T, h, w)."""
    steps, channels, height, width = x.shape
    mean = np.zeros((steps, height, width))
    for t, i, j in np.ndindex(*mean.shape):
        mean[t, i, j] = sum(x[t, c, i, j] for c in range(channels)) / channels
    return sigmoid(convolution(mean[None], weight[None, None])[0])


def ce_mask(
    x: np.ndarray, squeeze: np.ndarray, temporal: np.ndarray, expand: np.ndarray, with_relu: bool
) -> np.ndarray:
    """One clip (T, C, h, w), matrices (C/r, C), kernel (C/r, C/r, 3), (C, C/r) -> (T, C)."""
    steps, channels = x.shape[:2]
    pooled = np.array([[x[t, c].sum() / x[t, c].size for t in range(steps)] for c in range(channels)])  # (C, T)
    inner = convolution(convolution(pooled, squeeze[..., None]), temporal)
    return sigmoid(convolution(relu(inner) if with_relu else inner, expand[..., None])).T


def conv_gru(
    x: np.ndarray, weight_x, bias, weight_h, hidden: int, reset: str, h: np.ndarray | None = None
) -> np.ndarray:
    """One clip (T, C, h, w), gates z, r, n stacked in the weights -> states (T, hidden, h, w)."""
    h = np.zeros((hidden, *x.shape[2:])) if h is None else h
    gate = {name: slice(i * hidden, (i + 1) * hidden) for i, name in enumerate("zrn")}
    states = []
    for frame in x:
        gx = {name: convolution(frame, weight_x[rows], bias[rows]) for name, rows in gate.items()}
        z = sigmoid(gx["z"] + convolution(h, weight_h[gate["z"]]))
        r = sigmoid(gx["r"] + convolution(h, weight_h[gate["r"]]))
        if reset == "reset_after":
            n = np.tanh(gx["n"] + r * convolution(h, weight_h[gate["n"]]))
        else:
            n = np.tanh(gx["n"] + convolution(r * h, weight_h[gate["n"]]))
        h = (1 - z) * n + z * h
        states.append(h)
    return np.stack(states)


def channel_bottleneck(x: np.ndarray, layers) -> np.ndarray:
    """1×1, BN, ReLU, 1×1, BN on (C, h, w)."""
    first, norm1, _, second, norm2 = layers
    biases = [None if conv.bias is None else array(conv.bias) for conv in (first, second)]
    y = relu(batch_norm(convolution(x, array(first.weight), biases[0]), norm1))
    return batch_norm(convolution(y, array(second.weight), biases[1]), norm2)


def ms_cam(x: np.ndarray, attention) -> np.ndarray:
    local = channel_bottleneck(x, attention.local_branch)
    pooled = channel_bottleneck(spatial_mean(x), attention.global_branch)
    return sigmoid(local + pooled)


def mcam(x: np.ndarray, attention) -> np.ndarray:
    x0 = convolution(x, array(attention.reduce.weight), array(attention.reduce.bias))
    scales = [x0]
    for conv, norm, _ in attention.branches:
        assert conv.bias is None
        scales.append(relu(batch_norm(convolution(x0, array(conv.weight)), norm)))
    local = channel_bottleneck(np.concatenate(scales), attention.local_branch)
    if attention.global_branch is None:
        return sigmoid(local + spatial_mean(local))
    return sigmoid(local + channel_bottleneck(spatial_mean(x), attention.global_branch))


def aff(x: np.ndarray, y: np.ndarray, weights) -> np.ndarray:
    """`weights` maps X + Y to M."""
    m = weights(x + y)
    z = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        z[place] = m[place] * x[place] + (1 - m[place]) * y[place]
    return z
