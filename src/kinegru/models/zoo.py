"""The named models, each a row of options over one set of defaults: `create_model(name, num_classes, **options)`.

| name | encoder | over time | classifier | paper |
|---|---|---|---|---|
| sc_xception_convgru_mcam_aff | Xception + excitation | ConvGRU(40) | FC1, FC2, MCAM-AFF | the paper's model |
| sc_xception_convgru_aff | " | " | FC1, FC2, AFF (MS-CAM) | table 4 |
| sc_xception_convgru | " | " | FC1, FC2 in a row (`mlp`) | table 4's base; `classifier="linear"` is table 1's |
| xception_convgru | Xception | " | linear ("Softmax layer") | table 1 |
| xception_lstm, xception_gru | " | LSTM / GRU(256) on pooled maps | linear | comparison |
| tsn_xception | " | mean of frame logits | linear | the control the paper lacks |
| inception_v3_convgru, inception_resnet_v2_convgru | all frozen | ConvGRU(40) | linear | table 1 |
| mobilenet_convgru_mcam_aff | MobileNetV2 + excitation | ConvGRU(40) | FC1, FC2, MCAM-AFF | for small machines |
| lrcn | Xception | mean of LSTM(256) step logits | linear | Donahue et al., CVPR 2015 |
| two_stream | Xception on RGB, on flow | mean of frame logits | late fusion | Simonyan & Zisserman, NeurIPS 2014 |
| stc_resnet18, stc_resnet101 | 3-D ResNet with STC blocks | mean | linear | Diba et al., ECCV 2018 |
| sts | Xception on RGB, on flow, on saliency | mean of frame logits | late fusion | Liu et al., NCAA 2020 |
| stam | Xception | spatial gate, attention over frames | linear | unsettled, our reading |

Table 4 changes only the join of FC1 and FC2, so its base keeps both layers; table 1 compares encoders under one plain
linear layer. `kinegru.models.compared` says what is our reading in the last rows; `streams` "rgb" or "flow" makes
two_stream its spatial or its temporal stream alone. LRCN averages the predictions of every step: here their logits,
which is one linear layer on the mean of the states, with dropout between the two.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, SupportsIndex, get_args

from kinegru.errors import UsageError
from kinegru.models.classifiers import JoinedClassifier, LinearClassifier
from kinegru.models.committee import ClassifierCommittee, RecurrenceCommittee
from kinegru.models.compared.stam import AttentionPooling
from kinegru.models.compared.stc_resnet import DEPTHS, STCResNet
from kinegru.models.compared.streams import LateFusion, StreamsEncoder, parse_streams
from kinegru.models.convgru import Variant
from kinegru.models.encoders import FrameEncoder
from kinegru.models.excitation import ExcitationMode
from kinegru.models.fusion import GlobalBranch
from kinegru.models.recognizer import ActionRecognizer, Classifier, Encoder, Temporal
from kinegru.models.state import Readout
from kinegru.models.temporal import FrameMean, MapRecurrence, VectorRecurrence


@dataclass(frozen=True)
class ModelOptions:
    """Everything about a model that is not its weights or its labels. All values are JSON."""

    backbone: str = "legacy_xception"
    """Any timm CNN; or stc_resnet18, stc_resnet101, which are 3-D."""
    streams: str = "rgb"
    """What the encoder sees, a CNN for each: rgb, flow, saliency, energy, sg3i, or several joined by +."""
    backbone_weights: str = "none"
    """A local .safetensors or .pth file, `imagenet` (timm's download), or `none`."""
    pad_type: str | None = None
    """Padding of the backbone's convolutions: `same` (TensorFlow's), empty (timm's); null: by backbone and weights."""
    tail_start: str = "auto"
    """Backbone module the trained tail begins with; `auto`: the last that halves the maps; `none`: no tail."""
    tail_end: str = "auto"
    """Backbone module the tail ends with (Xception: `conv4` or `block12`); `auto`: the last that has weights."""
    excitation: str = "none"
    """parallel, serial, ste, ce or none."""
    excitation_place: str = "auto"
    """`branch`: only the residual branch sees excited maps; `block`: the skip convolution too."""
    excitation_rescale: bool = True
    """Scale so that a mask of 0.5 is the identity; False is the printed form."""
    excitation_reduction: int = 16
    """Channels of the channel mask are divided by this inside."""
    excitation_relu: bool = True
    """The ReLU in the channel mask that the paper's equation lacks."""
    temporal: str = "convgru"
    """convgru, lstm, gru (both on pooled maps), attention or mean."""
    hidden_channels: int = 40
    """Width of the recurrent state, and of attention's score of a frame."""
    kernel_size: int = 3
    """Of the ConvGRU, and of attention's spatial gate."""
    variant: str = "reset_after"
    """`reset_after` (the paper's ConvGRU) or `reset_before` (Ballas et al.)."""
    update_bias_init: float = 0.0
    """+1 to +2 lengthens the ConvGRU's memory."""
    readout: str = "max"
    """The max or mean of all states, or the last (the paper's)."""
    differences: bool = False
    """Frame differences beside the maps at the recurrence's input."""
    projection: int = 0
    """Channels that a 1×1 convolution leaves for the ConvGRU; 0, the default, has none (the paper's form)."""
    classifier: str = "mcam_aff"
    """mcam_aff, aff, add, mlp, linear, or late_fusion (one linear layer a stream)."""
    flow_weight: float = 1.5
    """Weight of the flow stream in late_fusion; the others have 1."""
    classifier_on: str = "maps"
    """`maps`, or `vectors` (pooled before FC1)."""
    width: int = 256
    """Of FC1 and FC2."""
    dropout: float = 0.5
    """In the classifier."""
    attention_reduction: int = 4
    """Channels of MCAM and MS-CAM are divided by this inside."""
    attention_kernels: tuple[int, ...] = (3, 5, 7)
    """Parallel kernels of MCAM."""
    attention_global: str = "pooled_local"
    """MCAM's global branch: `pooled_local` (the paper's) or `separate` (MS-CAM's)."""
    aff_scale: float = 1.0
    """2 is the doubled form of AFF's public code."""
    members: int = 1
    """Recurrences and classifiers over the one encoder, each from its own start; their scores are averaged."""
    freeze_tail_bn: bool | list[str] = True
    """Batch norms with pretrained statistics keep them; a list names their modules (what True came to)."""


_PLAIN: dict[str, Any] = {"classifier": "linear"}
_SC: dict[str, Any] = {"excitation": "parallel"}
_LATE: dict[str, Any] = {"classifier": "late_fusion", "temporal": "mean"}
_FROZEN: dict[str, Any] = {"classifier": "linear", "tail_start": "none"}
MODELS: dict[str, dict[str, Any]] = {
    "sc_xception_convgru_mcam_aff": _SC,
    "sc_xception_convgru_aff": _SC | {"classifier": "aff"},
    "sc_xception_convgru": _SC | {"classifier": "mlp"},
    "xception_convgru": _PLAIN,
    "xception_lstm": _PLAIN | {"temporal": "lstm", "hidden_channels": 256},
    "xception_gru": _PLAIN | {"temporal": "gru", "hidden_channels": 256},
    "tsn_xception": _PLAIN | {"temporal": "mean"},
    "inception_v3_convgru": _FROZEN | {"backbone": "inception_v3.tf_in1k"},
    "inception_resnet_v2_convgru": _FROZEN | {"backbone": "inception_resnet_v2"},
    "mobilenet_convgru_mcam_aff": _SC | {"backbone": "mobilenetv2_100"},
    "lrcn": _PLAIN | {"temporal": "lstm", "hidden_channels": 256, "readout": "mean"},
    "two_stream": _LATE | {"streams": "rgb+flow"},
    "stc_resnet18": _PLAIN | {"temporal": "mean", "backbone": "stc_resnet18"},
    "stc_resnet101": _PLAIN | {"temporal": "mean", "backbone": "stc_resnet101"},
    "sts": _LATE | {"streams": "rgb+flow+saliency"},
    "stam": _PLAIN | {"temporal": "attention", "hidden_channels": 256, "kernel_size": 7},
}

WORDS: dict[str, tuple[str, ...]] = {  # of options, known whichever part uses them
    "excitation": get_args(ExcitationMode),
    "excitation_place": ("auto", "branch", "block"),
    "temporal": ("convgru", "lstm", "gru", "attention", "mean"),
    "variant": get_args(Variant),
    "readout": get_args(Readout),
    "classifier": ("mcam_aff", "aff", "add", "mlp", "linear", "late_fusion"),
    "classifier_on": ("maps", "vectors"),
    "attention_global": get_args(GlobalBranch),
}


def list_models(pattern: str = "*") -> list[str]:
    """The names `create_model` knows that match a shell pattern, in the order of the table above.

    >>> list_models("xception_*")
    ['xception_convgru', 'xception_lstm', 'xception_gru']
    """
    return [name for name in MODELS if fnmatch.fnmatchcase(name, pattern)]


def model_options(name: str, **options: Any) -> ModelOptions:
    """The options of a named model with some changed. Raises UsageError for an unknown name or option.

    >>> model_options("xception_gru", hidden_channels=64).hidden_channels
    64
    """
    if name not in MODELS:
        close = difflib.get_close_matches(name, MODELS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "there are " + ", ".join(MODELS)
        raise UsageError(f"model {name!r} is unknown: {hint}")
    known = [field.name for field in fields(ModelOptions)]
    for option in options:
        if option not in known:
            close = difflib.get_close_matches(option, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(close)}?" if close else "there are " + ", ".join(known)
            raise UsageError(f"model option {option!r} is unknown: {hint}")
    chosen = replace(ModelOptions(), **(MODELS[name] | options))
    _check(chosen)
    return replace(chosen, attention_kernels=tuple(chosen.attention_kernels))


def create_model(name: str, num_classes: int, **options: Any) -> ActionRecognizer:
    """Build a named model; `options` are the fields of `ModelOptions`.

    The model is in training mode with profile `tail`. `create_model(model.name, K, **model.options)` builds the same
    model again without any weights file; the options are plain JSON. What the weights file lacked is in
    `model.encoder.report`. Raises UsageError for unknown names and options, KineGRUError where weights cannot be had.

    >>> model = create_model("mobilenet_convgru_mcam_aff", 6, backbone="mobilenetv2_050", hidden_channels=16, width=32)
    >>> model.options["tail_start"], model.num_classes
    ('blocks.5', 6)
    """
    chosen = model_options(name, **options)
    if isinstance(num_classes, bool) or not isinstance(num_classes, SupportsIndex) or num_classes.__index__() < 1:
        raise UsageError(f"a model needs at least one class, not {num_classes!r}")
    num_classes = num_classes.__index__()
    encoder = _encoder(chosen)
    if isinstance(chosen.freeze_tail_bn, list) and (strange := set(chosen.freeze_tail_bn) - set(encoder.items())):
        raise UsageError(f"freeze_tail_bn names {sorted(strange)[0]!r}, no module of {chosen.backbone} that is used")
    temporal: Any = [_temporal(chosen, encoder.out_channels) for _ in range(chosen.members)]
    width = temporal[0].out_channels
    classifier: Any = [_classifier(chosen, encoder, width, num_classes) for _ in range(chosen.members)]
    model = ActionRecognizer(
        encoder,
        temporal[0] if chosen.members == 1 else RecurrenceCommittee(temporal),
        classifier[0] if chosen.members == 1 else ClassifierCommittee(classifier),
        freeze_statistics=chosen.freeze_tail_bn is not False,
    )
    model.name = name
    model.options = asdict(chosen) | encoder.resolved | {"backbone_weights": "none"}
    model.options["attention_kernels"] = list(chosen.attention_kernels)
    if chosen.freeze_tail_bn is True:
        model.options["freeze_tail_bn"] = list(encoder.keep_statistics)
    return model


def _encoder(chosen: ModelOptions) -> Encoder:
    kept = chosen.freeze_tail_bn if isinstance(chosen.freeze_tail_bn, list) else None
    if chosen.backbone in DEPTHS:
        return STCResNet(chosen.backbone, str(chosen.backbone_weights), kept)
    options: dict[str, Any] = {
        "backbone": chosen.backbone,
        "weights": str(chosen.backbone_weights),
        "excitation": chosen.excitation,
        "place": chosen.excitation_place,
        "rescale": chosen.excitation_rescale,
        "reduction": chosen.excitation_reduction,
        "relu": chosen.excitation_relu,
        "tail_start": chosen.tail_start,
        "tail_end": chosen.tail_end,
        "pad_type": chosen.pad_type,
        "keep_statistics": kept,
    }
    streams = parse_streams(chosen.streams)
    return FrameEncoder(**options) if streams == ["rgb"] else StreamsEncoder(streams, **options)


def _temporal(chosen: ModelOptions, in_channels: int) -> Temporal:
    readout, differences = chosen.readout, chosen.differences
    if chosen.temporal == "mean":
        return FrameMean(in_channels)
    if chosen.temporal == "attention":
        return AttentionPooling(in_channels, chosen.hidden_channels, chosen.kernel_size)
    if chosen.temporal == "convgru":
        return MapRecurrence(
            in_channels,
            chosen.hidden_channels,
            chosen.kernel_size,
            readout,  # type: ignore[arg-type]
            chosen.variant,  # type: ignore[arg-type]
            chosen.update_bias_init,
            differences,
            chosen.projection,
        )
    return VectorRecurrence(chosen.temporal, in_channels, chosen.hidden_channels, readout, differences)  # type: ignore[arg-type]


def _classifier(chosen: ModelOptions, encoder: Encoder, in_channels: int, num_classes: int) -> Classifier:
    if chosen.classifier == "linear":
        return LinearClassifier(in_channels, num_classes, chosen.dropout)
    if chosen.classifier == "late_fusion":
        widths = encoder.stream_channels if isinstance(encoder, StreamsEncoder) else [in_channels]
        weights = [chosen.flow_weight if stream == "flow" else 1.0 for stream in parse_streams(chosen.streams)]
        return LateFusion(widths, num_classes, weights, chosen.dropout)
    return JoinedClassifier(
        in_channels,
        num_classes,
        chosen.classifier,  # type: ignore[arg-type]
        chosen.width,
        chosen.dropout,
        chosen.classifier_on,  # type: ignore[arg-type]
        chosen.attention_reduction,
        chosen.attention_kernels,
        chosen.attention_global,  # type: ignore[arg-type]
        chosen.aff_scale,
    )


def _check(chosen: ModelOptions) -> None:
    """Types, and the choices that no part checks itself."""
    for field in fields(ModelOptions):
        value, kind = getattr(chosen, field.name), type(field.default)
        if field.name in ("pad_type", "backbone_weights", "attention_kernels", "freeze_tail_bn"):
            continue
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise UsageError(f"model option {field.name} is {value!r}: give a value of type {kind.__name__}")
        if kind is float and not math.isfinite(float(value)):  # type: ignore[arg-type]
            raise UsageError(f"model option {field.name} is {value!r}: give a finite number")
    frozen = chosen.freeze_tail_bn
    if not isinstance(frozen, bool) and not (isinstance(frozen, list) and all(isinstance(n, str) for n in frozen)):
        raise UsageError(f"model option freeze_tail_bn is {frozen!r}: give true, false, or a list of modules")
    for name, words in WORDS.items():
        if (word := getattr(chosen, name)) not in words:
            raise UsageError(f"model option {name} is {word!r}: give one of {', '.join(words)}")
    kernels = chosen.attention_kernels
    if not isinstance(kernels, (list, tuple)) or not all(isinstance(k, int) and k > 0 and k % 2 for k in kernels):
        raise UsageError(f"model option attention_kernels is {kernels!r}: give a list of odd numbers")
    if chosen.pad_type not in (None, "", "same"):
        raise UsageError(f"model option pad_type is {chosen.pad_type!r}: give same, an empty text, or null")
    parse_streams(chosen.streams)
    if chosen.classifier == "late_fusion" and chosen.temporal != "mean":
        raise UsageError(
            f"late_fusion fuses the scores of streams, each a mean: give temporal mean, not {chosen.temporal}"
        )
    if not chosen.flow_weight > 0:
        raise UsageError(f"flow_weight is {chosen.flow_weight}: give a number above 0")
    if chosen.backbone in DEPTHS:
        for option in ("streams", "excitation", "tail_start", "tail_end", "excitation_place", "pad_type"):
            if getattr(chosen, option) != getattr(ModelOptions, option):
                raise UsageError(f"backbone {chosen.backbone} is a 3-D network on RGB frames: it takes no {option}")
    if chosen.temporal == "mean" and chosen.differences:
        raise UsageError("temporal model mean takes no differences: their mean is only the last frame minus the first")
    if chosen.temporal == "attention" and chosen.differences:
        raise UsageError("temporal model attention takes no differences: it looks at no order of frames")
    if chosen.members > 1 and chosen.temporal not in ("convgru", "lstm", "gru"):
        raise UsageError(f"members are recurrences, which temporal model {chosen.temporal} is not: give 1")
    if chosen.projection and chosen.temporal != "convgru":
        raise UsageError(f"projection belongs to the ConvGRU; temporal model {chosen.temporal} has none")
    if not 0 <= chosen.dropout < 1:
        raise UsageError(f"dropout {chosen.dropout} is not in [0, 1)")
    if chosen.projection < 0:
        raise UsageError(f"projection is {chosen.projection}: give a number of channels, or 0 for none")
    for option in ("hidden_channels", "members", "width", "kernel_size", "excitation_reduction", "attention_reduction"):
        if getattr(chosen, option) < 1:
            raise UsageError(f"model option {option} is {getattr(chosen, option)}: give at least 1")
