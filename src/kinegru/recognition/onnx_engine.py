"""Exported graphs run by onnxruntime, on as many threads as torch uses.

* All graphs share the processor's cores: a session's threads stop spinning when its graph is done, or they would take
  the cores from the next graph, and from the resize of the next frame.
* onnxruntime's own optimisations are all on: they lay maps out in blocks of channels, as the processor's vectors are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kinegru.errors import ModelFileError, UsageError


class OnnxRuntime:
    """See `exported.Runtime`. Raises UsageError where onnxruntime is missing, ModelFileError for a bad file."""

    def __init__(self, files: dict[str, Path]) -> None:
        onnxruntime = import_onnxruntime()
        self.sessions: dict[str, Any] = {}
        self.inputs: dict[str, list[str]] = {}
        for graph, file in files.items():
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.log_severity_level = 3  # errors
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
            options.add_session_config_entry("session.force_spinning_stop", "1")
            try:
                session = onnxruntime.InferenceSession(os.fspath(file), options, providers=["CPUExecutionProvider"])
            except Exception as error:
                raise ModelFileError(f"{file}: onnxruntime cannot read it; export the model again") from error
            self.sessions[graph] = session
            self.inputs[graph] = [value.name for value in session.get_inputs()]

    def run(self, graph: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `Runtime`."""
        feed = {name: np.asarray(array, order="C") for name, array in zip(self.inputs[graph], inputs, strict=True)}
        return self.sessions[graph].run(None, feed)


def import_onnxruntime() -> Any:
    """onnxruntime. Raises UsageError where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        raise UsageError("engine onnx needs onnxruntime: pip install 'kinegru[onnx]'") from None
    return onnxruntime
