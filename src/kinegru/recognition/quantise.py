"""A graph in eight bits: static quantisation by onnxruntime, weights a channel, activations as on real frames.

* Quantised are the 2-D convolutions and what lies between them; what mixes frames (the excitation) comes before them
  and stays in float32, and so do the recurrence and the classifier, which are graphs of their own.
* A tensor's range is the mean over frames of its least and of its greatest value. The least and greatest of all frames
  belong to few pixels and cost the others their precision; ranges of least squared error clip what later layers need.
  (Xception's maps, against float32: 20.6 dB, against 13.3 dB and 18.8 dB.)
* The stem stays in float32 too: the first convolution on pixels, and a depthwise one right behind it. Its few channels
  carry very different values. (MobileNet's maps: 20.1 dB, against 14.7 dB, for a millisecond.)
* And so do the sums of residual blocks, whose few large values would share a range with the rest. (Xception's maps:
  24.4 dB, against 23.7 dB; the differences of neighbouring frames, which are small, 11.1 and 10.3 dB; no slower.)
* Processors without VNNI instructions add products of eight bits in sixteen, which overflows: they get weights of
  seven.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

BETWEEN = ("AveragePool", "Clip", "Concat", "GlobalAveragePool", "MaxPool", "Relu")  # of two convolutions


def quantise(source: Path, target: Path, inputs: Iterable[dict[str, np.ndarray]], stem: bool) -> None:
    """Write the ONNX graph at `source` with eight-bit convolutions, calibrated on its `inputs`, to `target`.

    `stem`: the graph begins with pixels, and its stem is left as it is.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory(prefix="kinegru-") as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            _Reader(iter(inputs)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=not has_vnni(),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=_nodes(prepared, stem),
            extra_options={"CalibMovingAverage": True},
        )


def has_vnni() -> bool:
    """Whether this processor adds eight-bit products without overflow; true for those that are not x86."""
    described = Path("/proc/cpuinfo")
    text = described.read_text() if described.exists() else ""
    return "flags" not in text or "vnni" in text


def _nodes(path: Path, stem: bool) -> list[str]:
    """Names of the 2-D convolutions, without those of the stem, and of what comes after one of them."""
    import onnx

    graph = onnx.load(path).graph
    weights = {weight.name: list(weight.dims) for weight in graph.initializer if len(weight.dims) == 4}
    after: set[str] = set()  # tensors
    names: list[str] = []
    seen = 0
    for node in graph.node:  # in the order in which they run
        convolution = node.op_type == "Conv" and node.input[1] in weights
        seen += convolution
        if convolution and stem and (seen == 1 or (seen == 2 and weights[node.input[1]][1] == 1)):
            continue
        if convolution or (node.op_type in BETWEEN and after.intersection(node.input)):
            names.append(node.name)
            after.update(node.output)
    return names


class _Reader:
    """A `CalibrationDataReader`."""

    def __init__(self, inputs: Iterator[dict[str, np.ndarray]]) -> None:
        self.inputs = inputs

    def get_next(self) -> Any:
        return next(self.inputs, None)
