"""Which numbers a device computes in, and which settings are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from kinegru.errors import UsageError
from kinegru.training.processes import make_accelerator
from kinegru.training.settings import TrainSettings


def test_auto_is_float32_on_a_cpu(clips: Path, tmp_path: Path) -> None:
    assert make_accelerator(tiny.settings(precision="auto")).mixed_precision == "no"
    one, other = (
        tiny.fit_tiny(clips, tmp_path / name, tiny.settings(precision=name, epochs=1))[0] for name in ("auto", "no")
    )
    tiny.assert_same(tiny.weights(one), tiny.weights(other))


def test_bfloat16_learns_nearly_the_same_and_keeps_float32_weights(clips: Path, tmp_path: Path) -> None:
    options = {"options": {"dropout": 0.0}, "epochs": 1, "learning_rate": 1e-3, "ema": 0.5}
    model, low = tiny.fit_tiny(clips, tmp_path / "low", tiny.settings(precision="bf16", **options))
    other, full = tiny.fit_tiny(clips, tmp_path / "full", tiny.settings(precision="no", **options))
    assert {tensor.dtype for tensor in model.state_dict().values()} <= {torch.float32, torch.int64}
    assert low.history[0].train_loss == pytest.approx(full.history[0].train_loss, rel=0.03)
    assert low.history[0].val_loss == pytest.approx(full.history[0].val_loss, rel=0.03)
    assert low.history[0].train_loss != full.history[0].train_loss
    tiny.assert_close(dict(model.named_parameters()), dict(other.named_parameters()), atol=1e-2)


def test_two_runs_in_one_process_may_differ_in_precision() -> None:
    assert [make_accelerator(tiny.settings(precision=p)).mixed_precision for p in ("bf16", "no")] == ["bf16", "no"]


def test_float16_on_a_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a GPU"):
        make_accelerator(tiny.settings(precision="fp16"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="no CUDA device"):
        make_accelerator(tiny.settings(device="cuda"))
    with pytest.raises(UsageError, match="no Apple GPU"):
        make_accelerator(tiny.settings(device="mps"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("batch", 0), ("frames", -1), ("learning_rate", 0.0), ("validation", 1.5), ("ema", -0.1),
        ("max_bad_clips", 5), ("views", -1), ("patience", -1), ("clip_norm", -1.0), ("warmup_epochs", -1.0),
        ("micro_batch", 0), ("size", 0), ("workers", -1), ("checkpoint_minutes", -1.0), ("label_smoothing", 2.0),
    ],
)  # fmt: skip
def test_a_setting_without_sense_is_refused_by_its_option_name(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} must"):
        TrainSettings(**{name: value})  # type: ignore[arg-type]


def test_weights_are_no_model_option() -> None:
    with pytest.raises(UsageError, match="give --backbone-weights"):
        TrainSettings(options={"backbone_weights": "none"})
