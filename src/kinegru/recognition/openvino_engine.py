"""Exported graphs run by OpenVINO, on as many threads as torch uses, in float32 also where the processor has less.

* OpenVINO would take bfloat16 by itself on processors that have it; then the numbers are no longer torch's.
* Where shapes are free it chooses and checks at every call. A stream calls with the same few shapes again and again:
  what comes often is compiled once more for its shapes alone. A stream that predicts every frame takes 9 % less time
  for it with Xception at 299 pixels, 17 to 21 % less with MobileNet at 160 (`results/LOG.md`).
* A compiled model has one request, which holds inputs and outputs: threads that share an engine take turns.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kinegru.errors import ModelFileError, UsageError

OFTEN = 3  # calls with the same shapes
FIXED = 4  # compiled for their shapes alone, of each graph: each holds the weights once more

Shapes = tuple[tuple[int, ...], ...]  # of a graph's inputs


class OpenVINO:
    """See `exported.Runtime`. Raises UsageError where OpenVINO is missing, ModelFileError for a bad file."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.core = import_openvino().Core()
        self.files = files
        self.settings = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self.models = {graph: self._compiled(graph) for graph in files}
        self.calls: Counter[tuple[str, Shapes]] = Counter()
        self.fixed: dict[str, dict[Shapes, Any]] = {graph: {} for graph in files}
        self.turn = threading.Lock()

    def run(self, graph: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `Runtime`."""
        with self.turn:
            found = self._chosen(graph, inputs)([np.asarray(array, order="C") for array in inputs], share_inputs=True)
            return [found[number] for number in range(len(found))]  # copies: the next turn leaves them alone

    def _chosen(self, graph: str, inputs: Sequence[np.ndarray]) -> Any:
        """The graph compiled for inputs of any shape, or for just these where they come often."""
        shapes = tuple(array.shape for array in inputs)
        model = self.fixed[graph].get(shapes)
        if model is None:
            model = self.models[graph]
            self.calls[graph, shapes] += 1
            if self.calls[graph, shapes] == OFTEN and len(self.fixed[graph]) < FIXED:
                model = self.fixed[graph][shapes] = self._compiled(graph, shapes)
        return model

    def _compiled(self, graph: str, shapes: Shapes | None = None) -> Any:
        try:
            model = self.core.read_model(os.fspath(self.files[graph]))
            if shapes:
                model.reshape(dict(zip(model.inputs, map(list, shapes), strict=True)))
            return self.core.compile_model(model, "CPU", self.settings)
        except Exception as error:
            raise ModelFileError(f"{self.files[graph]}: OpenVINO cannot read it; export the model again") from error


def import_openvino() -> Any:
    """openvino. Raises UsageError where it is not installed."""
    try:
        import openvino
    except ImportError:
        raise UsageError("engine openvino needs OpenVINO: pip install 'kinegru[openvino]'") from None
    return openvino
