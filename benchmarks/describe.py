"""The machine of a measurement, with its GPU; also where only the source of the package is at hand."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from typing import Any


def describe(device: str = "cpu") -> dict[str, Any]:
    """What a measured time depends on."""
    try:
        from kinegru.runs.provenance import machine

        found = machine()
    except (ImportError, metadata.PackageNotFoundError):  # the reader of videos is missing, and not needed here
        import torch

        found = {
            "processor": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": metadata.version("timm"),
        }
    return found | (_gpu() if device == "cuda" else {})


def _gpu() -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(0)
    found = {
        "GPU": properties.name,
        "GPU memory, GB": round(properties.total_memory / 1e9, 1),
        "multiprocessors": properties.multi_processor_count,
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
    }
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
        found["driver"] = answer.splitlines()[0] if answer else "unknown"
    return found
