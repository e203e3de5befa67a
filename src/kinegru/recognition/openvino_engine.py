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
from kinegru.recognition.graphs import SMALL


class OpenVINO:
    """See `exported.Runtime`. Raises UsageError where OpenVINO is missing, ModelFileError for a bad file."""

    def __init__(self, files: dict[str, Path], threads: int | None = None) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        self.models: dict[str, Any] = {}
        self.singles: dict[str, Any] = {}  # for one clip at a time: fixed shapes make small graphs faster
        for graph, file in files.items():
            settings = {
                "INFERENCE_NUM_THREADS": 1 if graph in SMALL else threads or torch.get_num_threads(),
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
            }
            try:
                model = core.read_model(os.fspath(file))
                self.models[graph] = core.compile_model(model, "CPU", settings)
                if graph in SMALL:
                    model.reshape({value: _of_one(value) for value in model.inputs})
                    self.singles[graph] = core.compile_model(model, "CPU", settings)
            except Exception as error:
                raise ModelFileError(f"{file}: OpenVINO cannot read it; export the model again") from error

    def run(self, graph: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `Runtime`."""
        alone = graph in self.singles and len(inputs[0]) == 1
        model = self.singles[graph] if alone else self.models[graph]
        found = model([np.asarray(array, order="C") for array in inputs], share_inputs=True)
        return [found[number] for number in range(len(found))]


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
