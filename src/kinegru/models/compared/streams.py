"""Two-stream networks and STS: a frame CNN for pictures, another for optical flow, a third for motion saliency.

Two-stream (Simonyan & Zisserman, NeurIPS 2014): a CNN on single RGB frames and one on ten stacked flow fields (20
channels), trained apart; the class scores of a clip are a weighted mean of the streams' softmaxes. STS (Liu et al.,
Neural Computing and Applications 2020) adds a stream on spatio-temporal saliency maps. Notable:

* A frame is its streams' channels, one after the other (RGB 3, flow 20, saliency 1, energy 3, SG3I 3), and so are the
  maps: cache, profiles and temporal models see one wider encoder. Energy is ours; SG3I is time as colour (Kim & Won,
  IEEE Access 2020). Both are seen as if RGB.
* A stream of other than three channels has a first convolution of its own: the mean of the RGB one over its inputs, for
  every channel, times 3 / channels. (Wang et al., ECCV 2016, take the mean; the factor keeps the scale that batch norms
  with kept statistics expect: equal planes give what the grey picture gives.)
* `LateFusion` trains every stream by its own cross-entropy and fuses scores in use, with 1.5 for flow.
* Our reading: all streams have the same backbone; a stream's score of a clip is the softmax of its mean frame logits
  (two-stream averages softmaxes over frames); STS's saliency comes from flow (`kinegru.video.flow`), in the place of
  a segmentation method; flow streams in the profiles head and tail use the frozen trunk of an ImageNet network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kinegru.errors import UsageError
from kinegru.models.classifiers import fuse_scores
from kinegru.models.encoders import FrameEncoder

CHANNELS = {"rgb": 3, "flow": 20, "saliency": 1, "energy": 3, "sg3i": 3}  # of a frame; flow: x and y of ten fields


def parse_streams(streams: str) -> list[str]:
    """The streams of an option's text. Raises UsageError for one that is unknown or there twice.

    >>> parse_streams("rgb+flow")
    ['rgb', 'flow']
    """
    names = streams.split("+")
    if not set(names) <= set(CHANNELS) or len(set(names)) < len(names):
        raise UsageError(f"streams {streams!r} is unknown: join {', '.join(CHANNELS)} by +, such as rgb+flow")
    return names


class SideBySide(nn.Module):
    """Parts that each take their own channels; their outputs are joined on the channel axis, the third from the end.

    `keep` is handed on: the frames that necks give (`kinegru.models.encoders.Neck`).
    """

    def __init__(self, parts: Sequence[nn.Module], channels: Sequence[int]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.channels = list(channels)

    def forward(self, x: Tensor, *keep: slice | Tensor) -> Tensor:
        pieces = x.split(self.channels, dim=-3)
        return torch.cat([part(piece, *keep) for part, piece in zip(self.parts, pieces, strict=True)], dim=-3)


class StreamsEncoder(nn.Module):
    """Several frame encoders side by side: `trunk` (M, C_in, S, S) -> (M, ΣC0, h0, w0), `neck` likewise.

    `streams` names them in the order of their channels; `options` are `FrameEncoder`'s, the same for all. Attributes as
    of `FrameEncoder`, with modules named "flow.conv1", and `stream_channels`, how many of `out_channels` are each
    stream's.

    >>> encoder = StreamsEncoder(["rgb", "flow"], backbone="mobilenetv2_050")
    >>> encoder(torch.rand(2, 3, 23, 96, 96)).shape, encoder.in_channels
    (torch.Size([2, 3, 2560, 3, 3]), 23)
    """

    def __init__(self, streams: Sequence[str], keep_statistics: list[str] | None = None, **options: Any) -> None:
        super().__init__()
        self.streams = tuple(streams)
        encoders = []
        for stream in streams:
            kept = None
            if keep_statistics is not None:
                kept = [name.removeprefix(f"{stream}.") for name in keep_statistics if name.startswith(f"{stream}.")]
            encoders.append(FrameEncoder(in_channels=CHANNELS[stream], keep_statistics=kept, **options))
        first = encoders[0]
        self.trunk = SideBySide([encoder.trunk for encoder in encoders], [CHANNELS[stream] for stream in streams])
        self.neck = SideBySide([encoder.neck for encoder in encoders], [encoder.trunk_channels for encoder in encoders])
        self.stream_channels = [encoder.out_channels for encoder in encoders]
        self.in_channels = sum(self.trunk.channels)
        self.trunk_channels, self.out_channels = sum(self.neck.channels), sum(self.stream_channels)
        self.radius = first.radius
        self.backbone, self.report, self.resolved = first.backbone, first.report, first.resolved
        self.preprocessing_defaults = first.preprocessing_defaults | {"modalities": list(streams)}
        self._names = [encoder.names for encoder in encoders]
        self.keep_statistics = tuple(
            f"{stream}.{name}"
            for stream, encoder in zip(streams, encoders, strict=True)
            for name in encoder.keep_statistics
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (N, T, C_in, S, S), normalised -> maps (N, T, ΣC, h, w)."""
        return self.neck(self.trunk(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]))

    def items(self) -> dict[str, nn.Module]:
        """The backbones' modules as stream.name, in order."""
        found: dict[str, nn.Module] = {}
        for stream, names, trunk, neck in zip(
            self.streams, self._names, self.trunk.parts, self.neck.parts, strict=True
        ):
            modules = [*trunk, *neck.tail]  # type: ignore[misc, union-attr]
            found |= {f"{stream}.{name}": module for name, module in zip(names, modules, strict=True)}
        return found


class LateFusion(nn.Module):
    """One linear layer a stream on its pooled channels: (N, ΣC, h, w) -> scores of the clip.

    In training mode logits (N, streams, K), for a loss a stream. In eval mode (N, K), the log of the weighted mean of
    the streams' softmaxes: a softmax gives that mean.

    >>> fusion = LateFusion([40, 40], 6, weights=[1.0, 1.5])
    >>> fusion.train()(torch.rand(2, 80, 5, 5)).shape, fusion.eval()(torch.rand(2, 80, 5, 5)).shape
    (torch.Size([2, 2, 6]), torch.Size([2, 6]))
    """

    log_shares: Tensor  # (streams, 1)

    def __init__(
        self, channels: Sequence[int], num_classes: int, weights: Sequence[float], dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.channels = list(channels)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.ModuleList(nn.Linear(width, num_classes) for width in channels)
        shares = [math.log(weight / sum(weights)) for weight in weights]
        self.register_buffer("log_shares", torch.tensor(shares)[:, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.dropout(x.mean(dim=(2, 3))).split(self.channels, dim=1)
        logits = torch.stack([layer(part) for layer, part in zip(self.output, pooled, strict=True)], dim=1)
        return logits if self.training else self.fuse(logits)

    def fuse(self, logits: Tensor) -> Tensor:
        """Logits of every stream (N, streams, K) -> the logarithm of the fused scores (N, K), float32 or wider."""
        return fuse_scores(logits, self.log_shares)
