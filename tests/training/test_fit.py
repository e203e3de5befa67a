"""The training loop on real clips: what it computes, what it changes, what it keeps."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F

from kinegru.data.dataset import ClipDataset
from kinegru.errors import DataError
from kinegru.models.recognizer import ActionRecognizer
from kinegru.training.batches import plan_epoch
from kinegru.training.inference import Scores

PLAIN = {"dropout": 0.0, "classifier": "mlp"}  # nothing random and no batch norm in the classifier


@pytest.mark.parametrize("profile", ["head", "tail"])
def test_cached_and_uncached_training_give_the_same_losses(profile: str, clips: Path, tmp_path: Path) -> None:
    chosen = tiny.settings(profile=profile, options={"dropout": 0.0}, epochs=3, learning_rate=1e-4)
    _, cached = tiny.fit_tiny(clips, tmp_path / "cached", chosen, cache=tmp_path / "cache")
    _, uncached = tiny.fit_tiny(clips, tmp_path / "uncached", chosen)
    for one, other in zip(cached.history, uncached.history, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=2e-3)
        assert one.val_loss == pytest.approx(other.val_loss, rel=2e-3)
    assert cached.history[0].train_loss != cached.history[2].train_loss  # something was learnt


def test_same_seed_same_result_bit_by_bit(clips: Path, tmp_path: Path) -> None:
    chosen = tiny.settings(ema=0.5, schedule="cosine")
    models = [
        # the first run fills the cache, the second finds it full, the third begins with other random numbers behind it
        tiny.fit_tiny(clips, tmp_path / str(number), chosen, cache=tmp_path / "cache")[0]
        for number in range(2)
    ]
    torch.rand(17)
    models.append(tiny.fit_tiny(clips, tmp_path / "2", chosen, cache=tmp_path / "cache")[0])
    for model in models[1:]:
        tiny.assert_same(tiny.weights(models[0]), tiny.weights(model))
    other, _ = tiny.fit_tiny(clips, tmp_path / "3", tiny.settings(ema=0.5, schedule="cosine", seed=2))
    assert not torch.equal(other.classifier.output.weight, models[0].classifier.output.weight)


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_gradient_accumulation_equals_the_full_batch(micro_batch: int, clips: Path, tmp_path: Path) -> None:
    """With the encoder frozen and no batch norm in the classifier, the only statistics there are, it is the same sum.

    Where batch norms train (tail without pretrained statistics, AFF, MCAM) each micro-batch is normalised by itself.
    """
    whole = tiny.settings(profile="head", options=PLAIN, batch=5, learning_rate=1e-3)
    parts = tiny.settings(profile="head", options=PLAIN, batch=5, learning_rate=1e-3, micro_batch=micro_batch)
    (one, first), (other, second) = (
        tiny.fit_tiny(clips, tmp_path / name, chosen) for name, chosen in (("whole", whole), ("parts", parts))
    )
    tiny.assert_close(tiny.weights(one), tiny.weights(other))
    assert first.history[1].train_loss == pytest.approx(second.history[1].train_loss, rel=1e-4)


def test_losses_and_shares_are_means_over_clips(clips: Path, tmp_path: Path) -> None:
    chosen = tiny.settings(
        profile="head", options=PLAIN, epochs=1, batch=4, micro_batch=3, learning_rate=1e-12, label_smoothing=0.1,
        augment=False,
    )  # fmt: skip
    model, result = tiny.fit_tiny(clips, tmp_path, chosen)
    rates = []
    for members, smoothing in zip(tiny.divide(clips), (0.1, 0.0), strict=True):
        dataset = ClipDataset(members, tiny.ACTIONS, chosen.preprocessing(model.preprocessing_defaults))
        with torch.no_grad():
            logits = model.eval()(torch.stack([dataset[index].inputs for index in range(len(dataset))]))
        targets = torch.tensor(dataset.targets)
        right = (logits.argmax(dim=1) == targets).float().mean()
        rates += [float(F.cross_entropy(logits, targets, label_smoothing=smoothing)), float(right), 1.0]
    row = result.history[0]
    measured = [row.train_loss, row.train_top1, row.train_top5, row.val_loss, row.val_top1, row.val_top5]
    assert measured == pytest.approx(rates, rel=1e-5)


@pytest.mark.parametrize("profile", ["head", "tail", "full"])
def test_a_profile_trains_what_it_should_and_nothing_else(profile: str, clips: Path, tmp_path: Path) -> None:
    chosen = tiny.settings(profile=profile, epochs=3, learning_rate=1e-3)
    model = tiny.build(chosen)
    before = tiny.weights(model)
    tiny.fit_tiny(clips, tmp_path, chosen, model=model, validate=False)
    changed = {name for name, tensor in tiny.weights(model).items() if not torch.equal(tensor, before[name])}
    frozen = {"head": ("encoder.",), "tail": ("encoder.trunk.",), "full": ()}[profile]
    assert not [name for name in changed if name.startswith(frozen)] if frozen else True
    trained = {name for name, _ in model.named_parameters() if not name.startswith(frozen or "-")}
    assert trained == {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained - changed == set()


def test_the_moving_average_is_what_is_kept(clips: Path, tmp_path: Path) -> None:
    chosen = tiny.settings(ema=0.8, epochs=2)
    model = tiny.build(chosen)
    average: dict[str, torch.Tensor] = {}

    def follow(done: int, total: int, text: str) -> None:
        for name, p in model.named_parameters():
            average[name] = p.detach().clone() if done == 1 else 0.8 * average[name] + 0.2 * p.detach()

    _, result = tiny.fit_tiny(clips, tmp_path / "ema", chosen, model=model, validate=False, track=follow)
    tiny.assert_close(dict(model.named_parameters()), average, atol=1e-6)
    plain, other = tiny.fit_tiny(clips, tmp_path / "plain", tiny.settings(epochs=2), validate=False)
    assert [row.train_loss for row in result.history] == [row.train_loss for row in other.history]  # same course
    assert not torch.allclose(plain.classifier.output.weight, model.classifier.output.weight, atol=1e-4)


def test_the_moving_average_is_what_is_validated(clips: Path, tmp_path: Path) -> None:
    chosen = tiny.settings(ema=0.8, epochs=1)
    model, result = tiny.fit_tiny(clips, tmp_path, chosen)
    _, members = tiny.divide(clips)
    dataset = ClipDataset(members, tiny.ACTIONS, chosen.preprocessing(model.preprocessing_defaults))
    with torch.no_grad():
        logits = model.eval()(torch.stack([dataset[index].inputs for index in range(len(dataset))]))
    assert result.history[0].val_loss == pytest.approx(float(F.cross_entropy(logits, torch.tensor(dataset.targets))))


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation that finds the best top-1 in the second epoch, the best loss in the third, and none better later."""
    wrong, unsure, right, sure = [0.9, 0.1], [0.55, 0.45], [0.45, 0.55], [0.1, 0.9]  # of the second class
    found = iter([[wrong, right], [wrong, sure], [unsure, unsure]] + 30 * [[wrong, wrong]])
    targets = np.array([1, 1])

    def score(*_: object) -> Scores:
        return Scores(np.arange(2), targets, np.array(next(found)), {})

    monkeypatch.setattr("kinegru.training.loop.score_clips", score)


@pytest.mark.usefixtures("validated")
@pytest.mark.parametrize(("select", "best"), [("top1", 2), ("loss", 3)])
def test_the_best_epoch_on_validation_clips_is_kept(select: str, best: int, clips: Path, tmp_path: Path) -> None:
    model = tiny.build(tiny.settings())
    after: list[dict[str, torch.Tensor]] = []

    def follow(done: int, total: int, text: str) -> None:
        if done % 3 == 0:
            after.append(tiny.weights(model))  # of each epoch

    chosen = tiny.settings(epochs=4, select=select)
    _, result = tiny.fit_tiny(clips, tmp_path, chosen, model=model, track=follow)
    assert result.best_epoch == best and len(after) == 4
    assert [row.val_top1 for row in result.history] == [0.5, 0.5, 0.0, 0.0]
    tiny.assert_same(tiny.weights(model), after[best - 1])


@pytest.mark.usefixtures("validated")
def test_training_stops_early_when_nothing_gets_better(clips: Path, tmp_path: Path) -> None:
    _, result = tiny.fit_tiny(clips, tmp_path, tiny.settings(epochs=30, patience=2))
    assert result.best_epoch == 2 and len(result.history) == 4


def test_without_validation_clips_the_last_epoch_is_kept(clips: Path, tmp_path: Path) -> None:
    chosen = tiny.settings(epochs=3, learning_rate=0.05, patience=1)
    model = tiny.build(chosen)
    last: list[dict[str, torch.Tensor]] = [{}]

    def follow(done: int, total: int, text: str) -> None:
        last[0] = tiny.weights(model)

    _, result = tiny.fit_tiny(clips, tmp_path, chosen, model=model, validate=False, track=follow)
    assert result.best_epoch == len(result.history) == 3 and result.history[2].val_loss is None
    tiny.assert_same(tiny.weights(model), last[0])


def test_a_clipped_gradient_moves_less(clips: Path, tmp_path: Path) -> None:
    def moved(**options: float) -> float:
        chosen = tiny.settings(epochs=1, batch=10, **options)
        model = tiny.build(chosen)
        before = copy.deepcopy(model.classifier.output.weight)
        tiny.fit_tiny(clips, tmp_path / str(options), chosen, model=model, validate=False)
        return float((model.classifier.output.weight - before).detach().abs().max())

    assert moved() == pytest.approx(1e-2, rel=1e-3)  # Adam's first step, whatever the gradient's size
    assert moved(clip_norm=1e-12) < 1e-5  # unless it is much below Adam's epsilon


def test_weight_decay_is_decoupled(clips: Path, tmp_path: Path) -> None:
    def trained(**options: float) -> ActionRecognizer:
        return tiny.fit_tiny(clips, tmp_path / str(options), tiny.settings(epochs=1, batch=10, **options))[0]

    start = tiny.build(tiny.settings()).classifier.output.weight
    plain, decayed = trained().classifier.output.weight, trained(weight_decay=1.0).classifier.output.weight
    torch.testing.assert_close(plain - decayed, 1e-2 * start, rtol=1e-3, atol=1e-6)


def test_a_non_finite_loss_stops_and_names_the_clips(clips: Path, tmp_path: Path) -> None:
    chosen = tiny.settings(batch=2, learning_rate=1e36)
    with pytest.raises(DataError, match="epoch 1, step 2; lower --learning-rate") as caught:
        tiny.fit_tiny(clips, tmp_path, chosen)
    second = plan_epoch(10, 2, epoch=0, seed=1, views=2)[1].micro_batches[0]
    members = tiny.divide(clips)[0]
    assert all(str(members[index].path) in str(caught.value) for index, _ in second)
    assert str(caught.value).count(".mp4") == 2 and "\n" not in str(caught.value)


def test_batches_of_one_clip_can_be_learnt_from(clips: Path, tmp_path: Path) -> None:
    still = {"augment": False, "options": {"dropout": 0.0, "differences": True}}
    _, result = tiny.fit_tiny(clips, tmp_path, tiny.settings(batch=1, epochs=10, learning_rate=3e-3, **still))
    assert result.history[-1].train_loss < 0.5 * result.history[0].train_loss


def test_decoding_in_workers_changes_nothing(clips: Path, tmp_path: Path) -> None:
    one, other = (
        tiny.fit_tiny(clips, tmp_path / str(workers), tiny.settings(epochs=1, workers=workers))[0] for workers in (0, 2)
    )
    tiny.assert_same(tiny.weights(one), tiny.weights(other))
