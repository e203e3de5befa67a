"""What a report should know beside the predictions: the data, the split, the model, the training, the command.

Every field may be missing; the report then says so or leaves the line out. It is filled by the verbs `train` and
`evaluate`, so that `evaluation` needs to know neither models nor data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from kinegru.errors import UsageError


@dataclass(frozen=True)
class RunContext:
    """The circumstances of one result.

    >>> RunContext.of({"model": "sc_xception_convgru_mcam_aff", "siblings": 0}).siblings
    0
    """

    title: str | None = None  # heading of the report, e.g. "Weizmann, one person left out"
    data: str | None = None  # what was given as DATA
    command: str | None = None  # the shell command that repeats the result
    date: str | None = None  # when, as it should be shown
    notes: Sequence[str] = ()  # sentences the reader should see beside the protocol

    split: str | None = None  # as given: official:1, group, random, column, leave-one-group-out:NAME, folds:K:I, ...
    dealt: str | None = None  # digest of which clips the split trains on and which it tests
    siblings: int | None = None  # test clips with a clip of their own group in training; None: not known
    train_clips: int | None = None
    validation_clips: int | None = None
    test_clips: int | None = None  # without it, the clips in the predictions
    train_groups: int | None = None  # how many groups the training clips come from
    validation_groups: int | None = None
    test_groups: int | None = None  # without it, the groups in the predictions
    selection: str | None = None  # how the weights were chosen, e.g. "best validation top-1"

    model: str | None = None  # its name in the zoo
    parameters: int | None = None  # of the whole model
    trained_parameters: int | None = None  # of those, how many were trained
    weights: str | None = None  # where the backbone's first weights came from
    model_options: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)  # Preprocessing.to_dict()

    profile: str | None = None  # head, tail or full
    epochs: int | None = None  # epochs run
    best_epoch: int | None = None  # the epoch whose weights are kept
    seed: int | None = None
    seconds: float | None = None  # training time
    settings: Mapping[str, Any] = field(default_factory=dict)  # batch size, learning rate, ...
    versions: Mapping[str, str] = field(default_factory=dict)  # package -> version
    machine: str | None = None  # processor, cores, accelerator
    bad_clips: Mapping[str, str] | None = None  # path -> why it was skipped; None: not recorded

    @classmethod
    def of(cls, context: RunContext | Mapping[str, Any] | None) -> RunContext:
        """A context from a plain dict, from another context, or from nothing; `None` values count as missing.

        Raises:
            UsageError: if a key is none of the fields.

        >>> RunContext.of({"modle": "tsn_xception"})
        Traceback (most recent call last):
        kinegru.errors.UsageError: a report knows no 'modle'; it knows title, data, command, ..., bad_clips
        """
        if isinstance(context, RunContext):
            return context
        names = [item.name for item in fields(cls)]
        given = {key: value for key, value in (context or {}).items() if value is not None}
        for key in given:
            if key not in names:
                raise UsageError(f"a report knows no {key!r}; it knows {', '.join(names[:3])}, ..., {names[-1]}")
        return cls(**given)
