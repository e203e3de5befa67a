"""torch's own form of a model is folded and equal; the graphs that are exported make up the model, part by part."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kinegru.errors import UsageError
from kinegru.models.zoo import create_model
from kinegru.recognition import exported
from kinegru.recognition.engines import TorchEngine, exported_engine
from kinegru.recognition.export import compare
from kinegru.recognition.exported import ExportedEngine
from kinegru.recognition.fold import fold_batch_norms
from kinegru.recognition.graphs import Graph, graphs

CPU = torch.device("cpu")
SMALL = {"hidden_channels": 4, "width": 8}
XCEPTION = {"backbone": "xception_small"} | SMALL
TOLERANCE = 1e-4
PIXELS = {"inception_v3_convgru": 96, "inception_resnet_v2_convgru": 96}


def lively(name: str, **options: Any) -> Any:
    """A model with batch norms that do something, masks that differ from one half, and states that differ from zero."""
    torch.manual_seed(0)
    model = create_model(name, 3, **options)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.normal_(module.running_mean, std=0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.5, 1.5)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sc_xception_convgru_mcam_aff", SMALL),  # the paper's: depthwise, pointwise, norm
        ("sc_xception_convgru_aff", XCEPTION),
        ("mobilenet_convgru_mcam_aff", SMALL | {"backbone": "mobilenetv2_050"}),  # norm and activation in one
        ("inception_v3_convgru", {"hidden_channels": 4}),
        ("inception_resnet_v2_convgru", {"hidden_channels": 4}),
        ("stc_resnet18", {}),
        ("two_stream", {"backbone": "xception_small"}),
    ],
)
def test_no_batch_norm_is_left_and_the_numbers_are_the_same(name: str, options: dict[str, Any]) -> None:
    model = lively(name, **options)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    engine = TorchEngine(model, CPU)
    assert norms(model) > 5 and norms(engine.model) == 0
    size = PIXELS.get(name, 80)  # not that of the probe
    frames = torch.rand(2, 2, model.encoder.in_channels, size, size) * 2 - 1
    with torch.inference_mode():
        expected = model(frames)
    assert relative(engine.clip(frames), expected) <= TOLERANCE
    assert expected.std() > 1e-3
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_folding_leaves_a_model_in_training_alone() -> None:
    model = lively("sc_xception_convgru_mcam_aff", **XCEPTION).train()
    before = copy.deepcopy(model.state_dict())
    TorchEngine(model, CPU)
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert any(parameter.requires_grad for parameter in model.parameters())
    model(torch.rand(2, 2, 3, 64, 64)).sum().backward()


class _Shared(nn.Module):
    """One convolution before two batch norms, and one whose output is used beside the norm's."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.conv, self.twice = nn.Conv2d(3, 4, 3, padding=1), twice
        self.norm, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        nn.init.uniform_(self.norm.weight, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) + (self.other(self.conv(x + 1)) if self.twice else y)


@pytest.mark.parametrize("twice", [False, True])
def test_a_convolution_that_serves_others_too_is_not_folded(twice: bool) -> None:
    net, x = _Shared(twice).eval(), torch.rand(2, 3, 8, 8)
    kept = fold_batch_norms(net, x)
    assert norms(kept) == 2 and torch.equal(kept(x), net(x))


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 3), st.integers(1, 4), st.booleans(), st.sampled_from([1, 3]), st.booleans(), st.floats(0.01, 10))
def test_any_convolution_takes_up_its_norm(batch, width, depthwise, kernel, bias, variance) -> None:
    torch.manual_seed(0)
    groups = width if depthwise else 1
    net = nn.Sequential(nn.Conv2d(width, width, kernel, groups=groups, bias=bias), nn.BatchNorm2d(width), nn.ReLU())
    nn.init.constant_(net[1].running_var, variance)  # type: ignore[arg-type]
    nn.init.normal_(net[1].bias)
    x = torch.randn(batch, width, 6, 6)
    torch.testing.assert_close(fold_batch_norms(net, x)(x), net.eval()(x), rtol=1e-4, atol=1e-5)


class _Modules:
    """The graphs as torch modules, before any export: what every runtime has to give."""

    def __init__(self, found: dict[str, Graph]) -> None:
        self.found = found

    @torch.inference_mode()
    def run(self, graph: str, inputs: Any) -> list[np.ndarray]:
        out = self.found[graph].module(*(torch.from_numpy(np.asarray(array, order="C")) for array in inputs))
        return [tensor.numpy() for tensor in (out if isinstance(out, tuple) else (out,))]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(
            ("sc_xception_convgru_mcam_aff", {"excitation": mode})
            for mode in ("parallel", "serial", "ste", "ce", "none")
        ),
        *(("sc_xception_convgru_mcam_aff", {"readout": readout, "differences": True}) for readout in ("mean", "max")),
        ("sc_xception_convgru_mcam_aff", {"variant": "reset_before", "projection": 6, "excitation_place": "block"}),
        ("xception_lstm", {"differences": True}),
        ("lrcn", {}),
        ("xception_gru", {}),
        ("tsn_xception", {}),
        ("stam", {}),
        ("stc_resnet18", {}),
    ],
)
def test_the_graphs_make_up_the_model(name: str, options: dict[str, Any], monkeypatch, tmp_path) -> None:
    model = lively(name, **({} if name.startswith("stc") else XCEPTION), **options)
    found = graphs(model, 64, 4)
    shapes = {part: {"shape": _shape(part, graph)} for part, graph in found.items()}
    manifest = {"format": "torch", "radius": model.encoder.radius, "graphs": shapes, "preprocessing": {"frames": 6}}
    monkeypatch.setattr(exported, "read_manifest", lambda folder, path: manifest)
    monkeypatch.setattr(exported, "_runtime", lambda name, folder, graphs: _Modules(found))
    engine, plain = ExportedEngine(tmp_path), TorchEngine(model, CPU, fold=False)
    clips = torch.rand(3, 6, 3, 64, 64) * 2 - 1
    assert compare(plain, engine, list(clips)).greatest <= 1e-5
    assert relative(engine.clip(clips), plain.clip(clips)) <= 1e-5
    if engine.radius is not None:
        parts = plain.parts(plain.trunk(clips[0]), slice(None))
        state = engine.advance(parts[3:], engine.advance(parts[:3]))  # carried on
        assert relative(engine.logits(state), plain.clip(clips[:1])) <= 1e-5
        late = engine.advance(parts[3:4])  # a window that begins later, and goes on with the first
        both = engine.advance(parts[4:], engine.join([engine.advance(parts[:4]), late]))
        for windows, first in ((slice(0, 1), 0), (slice(1, None), 3)):
            expected = plain.logits(plain.advance(parts[first:]))
            assert relative(engine.logits(engine.take(both, windows)), expected) <= 1e-5
        assert engine.parts(plain.trunk(clips[0]), slice(2, 2)).shape == (0, *parts.shape[1:])


def _shape(part: str, graph: Graph) -> list[int]:
    with torch.no_grad():
        out = graph.module(*graph.example)
    first = out[0] if isinstance(out, tuple) else out
    return list(first.shape[2 if part == "neck" else 1 :])


def test_engines_for_processors_refuse_a_gpu(tmp_path) -> None:
    with pytest.raises(UsageError, match="on processors only"):
        exported_engine("onnx", torch.device("cuda"), tmp_path / "model.safetensors")
