"""KineGRU: human action recognition in video with SC-Xception, ConvGRU and attentional feature fusion.

>>> import kinegru
>>> kinegru.list_models("sc_*")
['sc_xception_convgru_mcam_aff', 'sc_xception_convgru_aff', 'sc_xception_convgru']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinegru.models import create_model, list_models
    from kinegru.recognition.prediction import Prediction
    from kinegru.recognition.recognizer import Recognizer
    from kinegru.recognition.timeline import Segment

__version__ = "0.1.0"
__all__ = ["Prediction", "Recognizer", "Segment", "create_model", "list_models", "load"]

_HOMES = {
    "Prediction": "kinegru.recognition.prediction",
    "Recognizer": "kinegru.recognition.recognizer",
    "Segment": "kinegru.recognition.timeline",
    "create_model": "kinegru.models",
    "list_models": "kinegru.models",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """The public names, imported when first used: `import kinegru` alone loads no torch."""
    if name == "load":
        return __getattr__("Recognizer").load
    if name not in _HOMES:
        raise AttributeError(f"module 'kinegru' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
