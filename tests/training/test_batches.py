"""The order of clips: every clip once an epoch, however many processes and micro-batches share it."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kinegru.training.batches import Step, plan_epoch

plans = {
    "clips": st.integers(1, 40),
    "batch": st.integers(1, 12),
    "micro_batch": st.none() | st.integers(1, 5),
    "world": st.integers(1, 4),
    "epoch": st.integers(0, 5),
    "views": st.integers(0, 4),
}


def indices(steps: list[Step]) -> list[int]:
    return [index for step in steps for micro in step.micro_batches for index, _ in micro]


@hypothesis_settings(deadline=None, max_examples=80)
@given(**plans)
def test_every_clip_comes_once_an_epoch(
    clips: int, batch: int, micro_batch: int | None, world: int, epoch: int, views: int
) -> None:
    options = {"epoch": epoch, "seed": 7, "views": views, "micro_batch": micro_batch, "world": world}
    ranks = [plan_epoch(clips, batch, rank=rank, **options) for rank in range(world)]
    assert sorted(index for steps in ranks for index in indices(steps)) == list(range(clips))
    assert len({len(steps) for steps in ranks}) == 1
    for steps in zip(*ranks, strict=True):
        assert len({len(step.micro_batches) for step in steps}) == 1  # the processes meet in every micro-batch
        assert {step.clips for step in steps} == {len(indices(list(steps)))} and steps[0].clips <= batch
        sizes = [len(micro) for step in steps for micro in step.micro_batches]
        assert max(sizes) <= (micro_batch or math.ceil(batch / world))
        assert max(sizes) - min(sizes) <= 1
    whole = plan_epoch(clips, batch, epoch=epoch, seed=7, views=views)
    for number, step in enumerate(whole):  # a batch is the same clips and views, whoever computes it
        shared = [item for steps in ranks for micro in steps[number].micro_batches for item in micro]
        assert sorted(shared) == sorted(item for micro in step.micro_batches for item in micro)


@hypothesis_settings(deadline=None, max_examples=40)
@given(clips=st.integers(1, 60), batch=st.integers(1, 16))
def test_batches_of_an_epoch_differ_by_one_clip_at_most(clips: int, batch: int) -> None:
    sizes = [step.clips for step in plan_epoch(clips, batch, epoch=0, seed=0)]
    assert len(sizes) == math.ceil(clips / batch) and max(sizes) - min(sizes) <= 1


def test_two_processes_see_the_micro_batches_that_one_sees_with_twice_the_size() -> None:
    one = plan_epoch(11, 4, epoch=0, seed=3, micro_batch=2)
    two = [plan_epoch(11, 4, epoch=0, seed=3, micro_batch=1, rank=rank, world=2) for rank in (0, 1)]
    for step, first, second in zip(one, *two, strict=True):
        pairs = zip(first.micro_batches, second.micro_batches, strict=True)
        assert [sorted(a + b) for a, b in pairs] == [sorted(micro) for micro in step.micro_batches]


def test_order_depends_on_seed_and_epoch_only() -> None:
    def order(**options: int) -> list[int]:
        return indices(plan_epoch(30, 8, **{"epoch": 0, "seed": 0} | options))

    assert order() == order()
    assert order() != order(epoch=1) and order() != order(seed=1)


def test_every_view_is_taken_in_turn() -> None:
    seen: dict[int, list[int]] = {index: [] for index in range(6)}
    for epoch in range(8):
        for step in plan_epoch(6, 4, epoch=epoch, seed=0, views=4):
            for micro in step.micro_batches:
                for index, view in micro:
                    seen[index].append(view)
    assert all(Counter(views) == {1: 2, 2: 2, 3: 2, 4: 2} for views in seen.values())
    assert len({tuple(views) for views in seen.values()}) == 4  # clips start at different ones


def test_without_fixed_views_every_epoch_has_its_own_and_without_augmentation_there_is_one() -> None:
    def views(**options: object) -> set[int]:
        steps = plan_epoch(6, 4, epoch=5, seed=0, **options)  # type: ignore[arg-type]
        return {view for step in steps for micro in step.micro_batches for _, view in micro}

    assert views() == {6} and views(augmented=False) == {0} and views(views=3, augmented=False) == {0}
