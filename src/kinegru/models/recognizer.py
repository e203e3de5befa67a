"""The one composition: frames -> trunk -> neck -> temporal model -> classifier -> logits.

* `forward(frames) = head(neck(trunk(frames)))`, and the three parts are methods of their own: a cache or a live stream
  enters between them.
* A profile says what trains: `head` (the encoder is frozen whole), `tail` (the trunk is frozen; the default), `full`.
  Frozen parts stay in eval mode through `.train()`, so their output is a constant of the clip and can be computed once:
  `cacheable`, `from_cache`.
* Batch norms with pretrained statistics keep them while their scale and shift train: forty frames of one clip are a
  poor sample. Modules that the weights file did not cover have nothing to keep and work as usual.
* A frozen trunk runs a few frames at a time: memory stays flat however long the clips are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kinegru.errors import UsageError
from kinegru.models.classifiers import JoinedClassifier, LinearClassifier
from kinegru.models.committee import ClassifierCommittee, RecurrenceCommittee
from kinegru.models.compared.stam import AttentionPooling
from kinegru.models.compared.stc_resnet import STCResNet
from kinegru.models.compared.streams import LateFusion, StreamsEncoder
from kinegru.models.encoders import FrameEncoder
from kinegru.models.temporal import FrameMean, MapRecurrence, VectorRecurrence

Profile = Literal["head", "tail", "full"]
Encoder = FrameEncoder | StreamsEncoder | STCResNet
Temporal = MapRecurrence | VectorRecurrence | FrameMean | AttentionPooling | RecurrenceCommittee
Classifier = LinearClassifier | JoinedClassifier | LateFusion | ClassifierCommittee

FRAMES_PER_PASS = 8  # of a frozen trunk; measured: more is no faster on a CPU


class ActionRecognizer(nn.Module):
    """Frames (N, T, 3, S, S), normalised float -> logits (N, K), for any T ≥ 1.

    A model of several streams takes their channels one after the other in the place of the 3 (`encoder.in_channels`).
    With a `LateFusion` classifier, or a committee of several, it gives logits (N, streams or members, K) in training
    mode, for a loss of each, and `classifier.fuse` makes (N, K) of them.

    >>> from kinegru.models.zoo import create_model
    >>> model = create_model("mobilenet_convgru_mcam_aff", 6, backbone="mobilenetv2_050")
    >>> model(torch.rand(2, 3, 3, 96, 96)).shape, model.cache_stage
    (torch.Size([2, 6]), 'trunk')
    """

    name: str = ""  # of the named model, and its options, complete enough to build it again: create_model sets both
    options: dict[str, Any]

    def __init__(
        self,
        encoder: Encoder,
        temporal: Temporal,
        classifier: Classifier,
        freeze_statistics: bool = True,
    ) -> None:
        super().__init__()
        self.encoder, self.temporal, self.classifier = encoder, temporal, classifier
        self.freeze_statistics = freeze_statistics
        for module in encoder.modules():  # measured: training on a CPU is 1.7 times faster for it
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.options = {}
        self.profile: Profile = "tail"
        self.set_profile("tail")

    # --- the way of the data

    def trunk(self, frames: Tensor) -> Tensor:
        """Frames (N, T, 3, S, S) -> maps (N, T, C0, h0, w0), each frame by itself."""
        channels = self.encoder.in_channels
        if frames.dim() != 5 or frames.shape[2] != channels or not frames.shape[1]:
            raise ValueError(f"frames have shape {tuple(frames.shape)}, expected (N, T, {channels}, S, S), T >= 1")
        if not frames.is_floating_point():
            raise ValueError(f"frames are {frames.dtype}: normalise them first (Preprocessing.normalise)")
        flat = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)  # (N·T, 3, S, S)
        if frames.requires_grad or (self.profile == "full" and (self.training or torch.is_grad_enabled())):
            return self.encoder.trunk(flat).unflatten(0, frames.shape[:2])
        with torch.no_grad():
            maps = [self.encoder.trunk(part).contiguous() for part in flat.split(FRAMES_PER_PASS)]
        return torch.cat(maps).unflatten(0, frames.shape[:2])

    def neck(self, maps: Tensor, keep: slice | None = None) -> Tensor:
        """Trunk maps (N, T, C0, h0, w0) -> features (N, T, C, h, w): excitation over t-1, t, t+1, and the tail.

        With `keep` the features of these frames only, the others serve their neighbours' excitation; that is for
        encoders with a radius.
        """
        return self.encoder.neck(maps) if keep is None else self.encoder.neck(maps, keep)

    def head(self, features: Tensor) -> Tensor:
        """Features (N, T, C, h, w) -> logits (N, K): temporal model and classifier."""
        return self.classify(self.temporal(features))

    def classify(self, readout: Tensor) -> Tensor:
        """What the temporal model reads out -> logits (N, K); a state is float32 also where the weights are not."""
        return self.classifier(readout.to(next(self.classifier.parameters()).dtype))

    def forward(self, frames: Tensor) -> Tensor:
        return self.head(self.neck(self.trunk(frames)))

    # --- what is trained, and what is therefore constant

    def set_profile(self, profile: Profile) -> ActionRecognizer:
        """Choose what trains: `head`, `tail` or `full`. Returns the model. Raises UsageError for another word."""
        if profile not in get_args(Profile):
            raise UsageError(f"profile {profile!r} is unknown: give one of {', '.join(get_args(Profile))}")
        self.profile = profile
        self.requires_grad_(True)
        for part in self._frozen():
            part.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> ActionRecognizer:
        """As in torch, except that frozen parts and kept batch norm statistics stay in eval mode."""
        super().train(mode)
        for part in self._frozen():
            part.eval()
        if self.freeze_statistics:
            kept = set(self.encoder.keep_statistics)
            for name, item in self.encoder.items().items():
                if name in kept:
                    for module in item.modules():
                        if isinstance(module, _BatchNorm):
                            module.eval()
        return self

    def trained_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that the profile trains, for the optimiser."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    @property
    def cache_stage(self) -> Literal["trunk", "neck"] | None:
        """After which part the profile's constant output can be kept: `neck` (head), `trunk` (tail), None (full).

        None also for `tail` where the trunk only hands frames on (a 3-D network).
        """
        if self.profile == "tail" and next(self.encoder.trunk.parameters(), None) is None:
            return None
        return {"head": "neck", "tail": "trunk", "full": None}[self.profile]  # type: ignore[return-value]

    @torch.no_grad()
    def cacheable(self, frames: Tensor) -> Tensor:
        """Frames (N, T, 3, S, S) -> the frozen parts' output: trunk maps (tail) or features (head). No gradients."""
        if self.cache_stage is None:
            raise UsageError(f"profile {self.profile} trains the whole model: nothing of it can be cached")
        maps = self.trunk(frames)
        return self.neck(maps) if self.cache_stage == "neck" else maps

    def from_cache(self, maps: Tensor) -> Tensor:
        """What `cacheable` gave, in any float type -> logits (N, K); `forward` is the two in a row."""
        if self.cache_stage is None:
            raise UsageError(f"profile {self.profile} trains the whole model: nothing of it can be cached")
        maps = maps.to(next(self.classifier.parameters()).dtype)
        return self.head(maps if self.cache_stage == "neck" else self.neck(maps))

    def cache_fingerprint(self) -> str:
        """A hash of all that `cacheable` depends on besides the frames: the frozen weights, and how they are joined.

        64 hexadecimal digits; an empty string where nothing is cacheable. Equal fingerprints mean equal cached maps.
        """
        if self.cache_stage is None:
            return ""
        digest = hashlib.sha256(f"{self.encoder.backbone} {self.cache_stage}".encode())
        for part in self._frozen():
            digest.update(repr(part).encode())
            for key, tensor in part.state_dict().items():
                if not key.endswith("num_batches_tracked"):
                    digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
                    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last linear layer by a fresh one for `num_classes`; all else, FC1 and FC2 included, stays."""
        for name, old in self._outputs.items():
            self.classifier.set_submodule(name, nn.Linear(old.in_features, num_classes).to(old.weight))

    @property
    def num_classes(self) -> int:
        return next(iter(self._outputs.values())).out_features

    @property
    def _outputs(self) -> dict[str, nn.Linear]:
        """The last linear layer, or the last one of every stream or member, by name: a classifier has no other."""
        return {name: layer for name, layer in self.classifier.named_modules() if isinstance(layer, nn.Linear)}

    @property
    def preprocessing_defaults(self) -> dict[str, Any]:
        """Size, mean, std and interpolation that the backbone expects."""
        return dict(self.encoder.preprocessing_defaults)

    def _frozen(self) -> list[nn.Module]:
        if self.profile == "full":
            return []
        return [self.encoder.trunk, self.encoder.neck] if self.profile == "head" else [self.encoder.trunk]
