"""Does a heat map show what the model has learnt? The cascading randomisation of Adebayo et al. (NeurIPS 2018).

From the output to the input one part after the other gets fresh weights, and the maps are compared with those of the
trained model. A map that stays the same was never about the weights: it shows edges, or the middle of the frame.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinegru.models.recognizer import ActionRecognizer
from kinegru.models.zoo import create_model
from kinegru.recognition.attribution import On, look

CASCADE = ("classifier", "temporal", "neck", "trunk")  # from the output to the input
SEED = 0  # of the fresh weights


def cascade(model: ActionRecognizer, frames: Tensor, index: int, on: On = "auto") -> dict[str, float]:
    """Rank correlation of the maps for class `index` with the trained ones, as parts up to each one are randomised.

    `frames` (1, T, C, S, S) are the network's input; the model is left as it is. 1 is the same map, 0 an unrelated one,
    or one without any heat.

    >>> model = create_model("mobilenet_convgru_mcam_aff", 2, backbone="mobilenetv2_050", hidden_channels=4, width=8)
    >>> list(cascade(model.eval(), torch.rand(1, 3, 3, 96, 96), 1))
    ['classifier', 'temporal', 'neck', 'trunk']
    """
    with torch.no_grad():
        maps = model.trunk(frames)
    trained = look(model, maps, index, on).heat
    found = {}
    for count, part in enumerate(CASCADE, start=1):
        changed = randomised(model, CASCADE[:count])
        if part == "trunk":
            with torch.no_grad():
                maps = changed.trunk(frames)
        found[part] = rank_correlation(trained, look(changed, maps, index, on).heat)
    return found


def randomised(model: ActionRecognizer, parts: tuple[str, ...]) -> ActionRecognizer:
    """A copy of the model in eval mode, with these parts as training from nothing would begin with them."""
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        fresh = create_model(model.name, model.num_classes, **(model.options | {"backbone_weights": "none"}))
    fresh = fresh.to(device).eval()
    changed = copy.deepcopy(model).eval()
    for part in parts:
        owner, source = (changed, fresh) if part in ("classifier", "temporal") else (changed.encoder, fresh.encoder)
        setattr(owner, part, getattr(source, part))
    return changed


def rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Spearman's, over all steps and places, -1 to 1; 0 where one of the two is the same everywhere.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 25.0]))
    1.0
    """
    from scipy.stats import spearmanr

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(round(spearmanr(one.ravel(), other.ravel()).statistic, 4))
