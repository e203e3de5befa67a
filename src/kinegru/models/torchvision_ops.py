"""Lets `import timm` work beside a torchvision whose compiled operators do not load.

* PyPI's torchvision for Linux x86-64 is a CUDA build. Beside a CPU torch its library does not load, and
  `import torchvision` ends with «operator torchvision::nms does not exist», and with it `import timm`.
* Nothing here needs those operators. It is enough that the names exist: each operator that the import misses is
  declared (never implemented), and the import is tried again. A sound torchvision is imported and left alone.
* The module acts when it is imported; import it before timm.
"""

from __future__ import annotations

import importlib
import re
import sys

import torch

_MISSING = re.compile(r"operator torchvision::(\w+) does not exist")
_SCHEMAS = {"nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"}
_declared: list[torch.library.Library] = []  # an operator lives as long as the library object that declared it


def import_torchvision(attempts: int = 32) -> bool:
    """Import torchvision, declaring the operators it misses; False where it is not installed.

    Errors of any other kind are torchvision's own and are raised.

    >>> import_torchvision() in (True, False)
    True
    """
    for _ in range(attempts):
        try:
            importlib.import_module("torchvision")
            return True
        except ModuleNotFoundError as error:
            if error.name == "torchvision":
                return False
            raise
        except RuntimeError as error:
            missing = _MISSING.search(str(error))
            if missing is None:
                raise
            _declare(missing.group(1))
            for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
                del sys.modules[name]  # half imported
    raise RuntimeError("torchvision could not be imported: its operators stay missing after they were declared")


def _declare(operator: str) -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(operator + _SCHEMAS.get(operator, "(Tensor input) -> Tensor"))
    _declared.append(library)


import_torchvision()
