"""Clips as a torch dataset: fixed views, bad clips as answers, loaders that leave dropout's random numbers alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from kinegru.data.catalog import Clip
from kinegru.data.dataset import ClipDataset, collate, load_batches, load_view
from kinegru.video.loading import load_clip
from kinegru.video.transforms import Augmentation, Preprocessing
from kinegru.video.writer import write_video

PREPROCESSING = Preprocessing(frames=3, size=16)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Three good clips and one that is no video."""
    folder = tmp_path_factory.mktemp("clips")
    found = []
    for number, label in enumerate(("run", "walk", "run")):
        path = folder / label / f"p{number}.mp4"
        write_video(path, np.random.default_rng(number).integers(0, 255, (9, 24, 32, 3), np.uint8))
        found.append(Clip(path, label))
    broken = folder / "walk" / "broken.mp4"
    broken.write_bytes(b"no video at all")
    return [*found, Clip(broken, "walk")]


class Signalled(ClipDataset):
    """All processes get a signal while it reads, as from a terminal, `timeout`, systemd or a cluster."""

    number = signal.SIGINT

    def __getitem__(self, key):
        os.kill(os.getpid(), self.number)
        return super().__getitem__(key)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_processes_that_decode_leave_a_stop_to_the_training(clips: list[Clip], number: int) -> None:
    dataset = Signalled(clips[:3], ["run", "walk"], PREPROCESSING)
    dataset.number = number
    assert [len(batch.inputs) for batch in load_batches(dataset, [[0, 1], [2]], 2)] == [2, 1]


def test_view_0_is_the_plain_clip_that_evaluation_sees(clips: list[Clip]) -> None:
    dataset = ClipDataset(clips, ["run", "walk"], PREPROCESSING, Augmentation())
    plain = load_clip(clips[0].path, PREPROCESSING)
    assert torch.equal(dataset[0].inputs, plain)
    assert torch.equal(dataset[0, 0].inputs, plain)


def test_an_augmented_view_is_the_same_in_every_epoch_process_and_run(clips: list[Clip]) -> None:
    first = ClipDataset(clips, ["run", "walk"], PREPROCESSING, Augmentation())
    again = ClipDataset(clips[::-1], ["run", "walk"], PREPROCESSING, Augmentation())  # another place in another set
    torch.manual_seed(5)
    assert torch.equal(first[0, 2].inputs, again[3, 2].inputs)
    by_workers = {
        (index, view): sample.inputs
        for (index, view), (sample,) in zip(
            [(0, 1), (1, 1), (0, 2)], load_batches(first, [[(0, 1)], [(1, 1)], [(0, 2)]], 2, list), strict=True
        )
    }
    assert torch.equal(by_workers[0, 2], first[0, 2].inputs)
    assert not torch.equal(by_workers[0, 1], by_workers[0, 2])


def test_views_of_two_clips_with_the_same_content_differ(clips: list[Clip], tmp_path: Path) -> None:
    twin = tmp_path / "twin.mp4"
    twin.write_bytes(clips[0].path.read_bytes())
    views = [load_view(clip, 1, PREPROCESSING, Augmentation()) for clip in (clips[0], Clip(twin, "run"))]
    assert not torch.equal(*views)


def test_without_augmentation_every_view_is_the_plain_one(clips: list[Clip]) -> None:
    dataset = ClipDataset(clips, ["run", "walk"], PREPROCESSING)
    assert torch.equal(dataset[1, 3].inputs, dataset[1, 0].inputs)


def test_a_bad_clip_is_an_answer_that_names_the_file(clips: list[Clip]) -> None:
    sample = ClipDataset(clips, ["run", "walk"], PREPROCESSING)[3]
    assert sample.inputs is None and "broken.mp4" in sample.error and "\n" not in sample.error


def test_a_label_that_is_not_among_the_classes_has_no_target(clips: list[Clip]) -> None:
    assert ClipDataset(clips, ["walk"], PREPROCESSING).targets == [-1, 0, -1, 0]


def test_a_batch_holds_the_good_clips_and_names_the_bad(clips: list[Clip]) -> None:
    dataset = ClipDataset(clips, ["run", "walk"], PREPROCESSING)
    batch = collate([dataset[index] for index in (3, 1, 2)])
    assert batch.inputs.shape == (2, 3, 3, 16, 16)
    assert batch.indices == [1, 2] and batch.targets.tolist() == [1, 0] and list(batch.errors) == [3]
    assert collate([dataset[3]]).inputs is None
    assert collate([]).inputs is None and collate([]).targets.dtype == torch.int64


@pytest.mark.parametrize("workers", [0, 2])
def test_opening_a_loader_does_not_move_the_random_numbers_of_dropout(clips: list[Clip], workers: int) -> None:
    dataset = ClipDataset(clips, ["run", "walk"], PREPROCESSING)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    batches = list(load_batches(dataset, [[(0, 1), (1, 1)], [], [3]], workers))
    assert torch.equal(torch.rand(3), expected)
    assert [batch.indices for batch in batches] == [[0, 1], [], []]
