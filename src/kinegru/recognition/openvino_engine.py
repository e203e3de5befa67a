"""Exported graphs run by OpenVINO, on as many threads as torch uses, in float32 also where the processor has less.

OpenVINO would take bfloat16 by itself on processors that have it; then the numbers are no longer torch's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kinegru.errors import ModelFileError, UsageError

ALONE = ("trunk", "start", "step")  # compiled once more, when first needed, for one frame or clip: a sixth faster


class OpenVINO:
    """See `exported.Runtime`. Raises UsageError where OpenVINO is missing, ModelFileError for a bad file."""

    def __init__(self, files: dict[str, Path], threads: int | None = None) -> None:
        self.core = import_openvino().Core()
        self.files = files
        self.settings = {
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self.models = {graph: self._compiled(graph, alone=False) for graph in files}
        self.singles: dict[str, Any] = {}

    def run(self, graph: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `Runtime`."""
        model = self.models[graph]
        if graph in ALONE and len(inputs[0]) == 1:
            if graph not in self.singles:
                self.singles[graph] = self._compiled(graph, alone=True)
            model = self.singles[graph]
        found = model([np.asarray(array, order="C") for array in inputs], share_inputs=True)
        return [found[number] for number in range(len(found))]

    def _compiled(self, graph: str, alone: bool) -> Any:
        try:
            model = self.core.read_model(os.fspath(self.files[graph]))
            if alone:
                model.reshape({value: _of_one(value) for value in model.inputs})
            return self.core.compile_model(model, "CPU", self.settings)
        except Exception as error:
            raise ModelFileError(f"{self.files[graph]}: OpenVINO cannot read it; export the model again") from error


def _of_one(value: Any) -> list[int]:
    """An input's shape with 1 wherever it is free."""
    return [1 if length.is_dynamic else length.get_length() for length in value.partial_shape]


def import_openvino() -> Any:
    """openvino. Raises UsageError where it is not installed."""
    try:
        import openvino
    except ImportError:
        raise UsageError("engine openvino needs OpenVINO: pip install 'kinegru[openvino]'") from None
    return openvino
