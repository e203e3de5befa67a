"""A committee is its members, each by itself, and the mean of what they say."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from kinegru.errors import UsageError
from kinegru.models.zoo import create_model

KINDS = [("convgru", "mcam_aff"), ("lstm", "linear"), ("gru", "add")]


def member(committee, number: int, small, **options):
    """A model of one recurrence and classifier with the weights of the committee's member."""
    alone = small(**options)
    alone.encoder.load_state_dict(committee.encoder.state_dict())
    alone.temporal.load_state_dict(committee.temporal.members[number].state_dict())
    alone.classifier.load_state_dict(committee.classifier.members[number].state_dict())
    return alone.train(committee.training)


@pytest.mark.parametrize("readout", ["last", "mean", "max"])
@pytest.mark.parametrize("differences", [False, True])
@pytest.mark.parametrize(("temporal", "classifier"), KINDS)
def test_a_committee_gives_the_mean_of_its_members_scores(small, temporal, classifier, differences, readout):
    options = {"temporal": temporal, "classifier": classifier, "differences": differences, "readout": readout}
    committee = small(members=3, **options).eval()
    frames = torch.rand(2, 4, 3, 64, 64)
    scores = [member(committee, number, small, **options)(frames).softmax(1) for number in range(3)]
    assert len({tuple(s.flatten().tolist()) for s in scores}) == 3  # each has its own start
    torch.testing.assert_close(committee(frames).softmax(1), torch.stack(scores).mean(0))


@pytest.mark.parametrize(("temporal", "classifier"), KINDS)
def test_members_are_trained_as_if_alone(small, temporal, classifier):
    options = {"temporal": temporal, "classifier": classifier, "dropout": 0.0}
    committee = small(members=2, **options).set_profile("head").train()
    maps, targets = committee.cacheable(torch.rand(3, 4, 3, 64, 64)), torch.tensor([0, 1, 2])
    logits = committee.from_cache(maps)
    assert logits.shape == (3, 2, committee.num_classes)
    F.cross_entropy(logits.flatten(0, 1), targets.repeat_interleave(2), reduction="sum").backward()
    for number in range(2):
        alone = member(committee, number, small, **options).set_profile("head").train()
        F.cross_entropy(alone.from_cache(maps), targets, reduction="sum").backward()
        for part in ("temporal", "classifier"):
            own = getattr(committee, part).members[number].named_parameters()
            for (name, of_member), of_alone in zip(own, getattr(alone, part).parameters(), strict=True):
                torch.testing.assert_close(of_member.grad, of_alone.grad, msg=name)


def test_every_member_gets_new_classes(small):
    committee = small(members=3)
    before = {name: tensor.clone() for name, tensor in committee.state_dict().items()}
    committee.reset_classifier(7)
    assert committee.num_classes == 7 and committee.eval()(torch.rand(1, 2, 3, 64, 64)).shape == (1, 7)
    changed = {name for name, tensor in committee.state_dict().items() if tensor.shape != before[name].shape}
    assert changed == {f"classifier.members.{i}.output.{part}" for i in range(3) for part in ("weight", "bias")}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: create_model("tsn_xception", 2, members=2),
            "members are recurrences, which temporal model mean is not: give 1",
        ),
        (lambda: create_model("stam", 2, members=2), "temporal model attention"),
        (lambda: create_model("xception_lstm", 2, members=0), "members is 0: give at least 1"),
    ],
)
def test_what_cannot_be_a_committee_is_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()
