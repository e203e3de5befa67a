"""Which clips train and which are tested: the split decides what an accuracy means.

* `official:N`  UCF101's and HMDB51's published lists, N = 1, 2, 3;
* `group`       3:1, whole groups, classes balanced: the default where groups are known;
* `random`      3:1 by clip, classes balanced: repeats the paper, and *leaks* where clips have siblings;
* `column`      the `split` column of the CSV (or the folders train, val, test), val kept for validation;
* `leave-one-group-out:NAME`  tests on one group, e.g. one person;
* `folds:K:I`   fold I = 1 ... K of K, by group where groups are known, classes balanced.

Every split counts the test clips that have a sibling (a clip of the same group) in training, where groups are known,
and every class of the catalog is in training. The same clips, split and seed always give the same split, anywhere.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kinegru.data import official
from kinegru.data.catalog import Catalog, Clip
from kinegru.errors import DataError, UsageError
from kinegru.files import content_digest

TEST_FRACTION = 0.25  # 3:1, as the paper prints
SPLIT_FORMS = "official:1|2|3, group, random, column, leave-one-group-out:NAME or folds:K:I"


@dataclass(frozen=True)
class Split:
    """Training and test clips, sorted by path, of one split."""

    train: tuple[Clip, ...]
    test: tuple[Clip, ...]
    name: str  # the split's full name, e.g. "folds:5:1"
    siblings: int | None  # test clips with a clip of the same group in training or validation; None: not known
    validation: tuple[Clip, ...] = ()  # only where the data names it; else take `hold_out(train)`
    notes: tuple[str, ...] = ()  # what a user should know, one line each


def default_split(catalog: Catalog) -> str:
    """The most honest split the data allows: official:1, else column, else group, else random.

    >>> from pathlib import Path
    >>> clips = (Clip(Path("set/walk/a.avi"), "walk", "ann"), Clip(Path("set/walk/b.avi"), "walk", "bob"))
    >>> default_split(Catalog(Path("set"), clips, ("walk",), "folder"))
    'group'
    """
    if catalog.lists is not None:
        return "official:1"
    if {"train", "test"} <= {clip.split for clip in catalog.clips}:
        return "column"
    return "group" if len(catalog.groups) > 1 else "random"


def make_split(catalog: Catalog, split: str = "group", seed: int = 0) -> Split:
    """Divide a catalog; `split` is one of the forms at the head of this module.

    Raises UsageError for an unknown form, and DataError where the data does not allow the split: no groups known, no
    official lists, no such group, or a class that would be missing in training.

    >>> from pathlib import Path
    >>> people = ("ann", "bob", "cyd", "dan")
    >>> clips = tuple(Clip(Path(f"{a}/{p}.avi"), a, p) for a in ("run", "walk") for p in people)
    >>> split = make_split(Catalog(Path("."), clips, ("run", "walk"), "folder"), "leave-one-group-out:cyd")
    >>> [clip.path.as_posix() for clip in split.test], len(split.train), split.siblings
    (['run/cyd.avi', 'walk/cyd.avi'], 6, 0)
    """
    mode, _, rest = split.partition(":")
    if mode == "official" and rest:
        return _official(catalog, split, rest)
    if mode == "leave-one-group-out" and rest:
        return _leave_one_group_out(catalog, split, rest)
    if mode == "folds" and ":" in rest:
        return _fold(catalog, split, rest, seed)
    if split == "column":
        return _column(catalog, split)
    if split == "group":
        _require_groups(catalog, split)
        train, test = _divide(catalog.clips, _units(catalog.clips), TEST_FRACTION, seed, at_least_one=True)
        return _finish(catalog, split, train, test)
    if split == "random":
        train, test = _divide(catalog.clips, list(range(len(catalog.clips))), TEST_FRACTION, seed, at_least_one=True)
        return _finish(catalog, split, train, test)
    if split in ("official", "leave-one-group-out") or mode == "folds":
        raise UsageError(f"split {split!r} means several splits here; name one: {SPLIT_FORMS}")
    raise UsageError(f"unknown split {split!r}; it can be {SPLIT_FORMS}")


def make_splits(catalog: Catalog, split: str, seed: int = 0) -> list[Split]:
    """All splits that a name without its number means: `official`, `folds:K`, `leave-one-group-out`; else the one.

    >>> from pathlib import Path
    >>> clips = tuple(Clip(Path(f"{a}/{p}.avi"), a, p) for a in ("run", "walk") for p in ("ann", "bob"))
    >>> catalog = Catalog(Path("."), clips, ("run", "walk"), "folder")
    >>> [split.name for split in make_splits(catalog, "leave-one-group-out")]
    ['leave-one-group-out:ann', 'leave-one-group-out:bob']
    """
    mode, _, rest = split.partition(":")
    if split == "official":
        names = [f"official:{number}" for number in (1, 2, 3)]
    elif split == "leave-one-group-out":
        _require_groups(catalog, split)
        names = [f"{split}:{group}" for group in catalog.groups]
    elif mode == "folds" and rest and ":" not in rest:
        names = [f"folds:{rest}:{number}" for number in range(1, _integer(rest, split) + 1)]
    else:
        names = [split]
    return [make_split(catalog, name, seed) for name in names]


def folder_names(splits: Sequence[Split]) -> list[str]:
    """A folder's name for each split, all of them different, also where capitals do not count.

    >>> names = ["leave-one-group-out:ann", "leave-one-group-out:p 1", "leave-one-group-out:p-1"]
    >>> folder_names([Split((), (), name, 0) for name in names])
    ['leave-one-group-out-ann', 'leave-one-group-out-p-1-1430b3', 'leave-one-group-out-p-1-5aa35d']
    """
    plain = [re.sub(r"[^\w.-]+", "-", split.name) for split in splits]
    times = Counter(name.lower() for name in plain)
    digests = [hashlib.sha256(split.name.encode("utf-8", "surrogateescape")).hexdigest()[:6] for split in splits]
    return [
        name if times[name.lower()] == 1 else f"{name}-{digest}" for name, digest in zip(plain, digests, strict=True)
    ]


def digest_of_splits(catalog: Catalog, splits: Sequence[Split]) -> str:
    """16 hex digits that change where other clips are trained on or tested, by name, label or content.

    >>> from pathlib import Path
    >>> clips = tuple(Clip(Path(f"{a}/{p}.avi"), a, p) for a in ("run", "walk") for p in ("ann", "bob"))
    >>> catalog = Catalog(Path("."), clips, ("run", "walk"), "folder")
    >>> ann, bob = ([split] for split in make_splits(catalog, "leave-one-group-out"))
    >>> digest_of_splits(catalog, ann) == digest_of_splits(catalog, bob)
    False
    """
    digest = hashlib.sha256()
    for split in splits:
        for part in ("train", "validation", "test"):
            for clip in getattr(split, part):
                row = f"{part}\t{catalog.name(clip)}\t{clip.label}\t{content_digest(clip.path)}\n"
                digest.update(row.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def hold_out(clips: Iterable[Clip], fraction: float = 0.2, seed: int = 0) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """Set about `fraction` (0 to 1) of training aside for validation: whole groups, classes balanced.

    Fewer are taken, down to none, where a class would lose its last training clip.

    >>> from pathlib import Path
    >>> clips = [Clip(Path(f"{a}/{p}.avi"), a, p) for a in ("run", "walk") for p in "abcde"]
    >>> train, validation = hold_out(clips)
    >>> len(train), sorted(clip.label for clip in validation), count_siblings(train, validation)
    (8, ['run', 'walk'], 0)
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"validation fraction is {fraction}; it must be at least 0 and below 1")
    clips = sorted(clips, key=lambda clip: clip.path.as_posix())
    train, validation = _divide(clips, _units(clips), fraction, seed, at_least_one=False)
    return tuple(train), tuple(validation)


def count_siblings(train: Iterable[Clip], test: Iterable[Clip]) -> int:
    """How many test clips share a known group with a training clip: 0 where nothing leaks.

    >>> from pathlib import Path
    >>> a, b, c = (Clip(Path(f"walk/{n}.avi"), "walk", n[0]) for n in ("a1", "a2", "b1"))
    >>> count_siblings([a], [b, c])
    1
    """
    known = {clip.group for clip in train if clip.group is not None}
    return sum(clip.group in known for clip in test)


def known_siblings(train: Iterable[Clip], test: Iterable[Clip]) -> int | None:
    """How many test clips surely have a sibling in training; None where none has but not every clip's group is known.

    >>> from pathlib import Path
    >>> a, b, c = (Clip(Path(f"walk/{n}.avi"), "walk", group) for n, group in (("a", "ann"), ("b", "bob"), ("c", None)))
    >>> known_siblings([a], [b]), known_siblings([a], [b, c]), known_siblings([a, c], [a])
    (0, None, 1)
    """
    train, test = list(train), list(test)
    found = count_siblings(train, test)
    return None if not found and any(clip.group is None for clip in (*train, *test)) else found


def _official(catalog: Catalog, split: str, number: str) -> Split:
    if number not in ("1", "2", "3"):
        raise UsageError(f"split {split!r}: there are the official splits 1, 2 and 3")
    if catalog.kind not in official.KINDS:
        raise DataError(f"{catalog.root}: only UCF101 and HMDB51 have official splits; this is a {catalog.kind}")
    if catalog.lists is None:
        folder = "ucfTrainTestlist" if catalog.kind == "ucf101" else "testTrainMulti_7030_splits"
        raise DataError(f"{catalog.root}: no official lists found; put the folder {folder} into it or beside it")
    train, test, notes = official.official_split(catalog.kind, catalog.clips, catalog.lists, int(number))
    return _finish(catalog, split, train, test, notes=notes)


def _leave_one_group_out(catalog: Catalog, split: str, name: str) -> Split:
    _require_groups(catalog, split)
    if name not in catalog.groups:
        some = ", ".join(catalog.groups[:12]) + (", ..." if len(catalog.groups) > 12 else "")
        raise DataError(f"{catalog.root}: no group {name!r}; there are {some}")
    test = [clip for clip in catalog.clips if clip.group == name]
    return _finish(catalog, split, [clip for clip in catalog.clips if clip.group != name], test)


def _fold(catalog: Catalog, split: str, rest: str, seed: int) -> Split:
    from sklearn.model_selection import StratifiedGroupKFold

    count, _, number = rest.partition(":")
    folds, index = _integer(count, split), _integer(number, split)
    if not 1 <= index <= folds:
        raise UsageError(f"split {split!r}: there are folds 1 to {folds}")
    units = _units(catalog.clips)
    if len(set(units)) < folds:
        raise DataError(f"{catalog.root}: {len(set(units))} groups cannot make {folds} folds")
    y = [catalog.labels.index(clip.label) for clip in catalog.clips]
    with warnings.catch_warnings():  # a class with fewer clips than folds is missing in some tests: `notes` says so
        warnings.simplefilter("ignore", UserWarning)
        try:
            parts = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(y, y, units))
        except ValueError as error:
            raise DataError(f"{catalog.root}: cannot make {folds} folds ({error})") from None
    chosen = set(parts[index - 1][1].tolist())
    test = [clip for i, clip in enumerate(catalog.clips) if i in chosen]
    return _finish(catalog, split, [clip for i, clip in enumerate(catalog.clips) if i not in chosen], test)


def _column(catalog: Catalog, split: str) -> Split:
    parts = {value: [c for c in catalog.clips if c.split == value] for value in ("train", "val", "test", None)}
    if len(parts[None]) == len(catalog.clips):
        raise DataError(f"{catalog.root}: no clip says whether it is train, val or test (CSV column split)")
    notes = [f"{len(parts[None])} clips have an empty split and are not used"] if parts[None] else []
    return _finish(catalog, split, parts["train"], parts["test"], parts["val"], notes)


def _finish(
    catalog: Catalog, name: str, train: Sequence[Clip], test: Sequence[Clip],
    validation: Sequence[Clip] = (), notes: Sequence[str] = (),
) -> Split:  # fmt: skip
    """Check what every split promises, count siblings, and say what a reader of the result must know."""
    for side, clips in (("training", train), ("test", test)):
        if not clips:
            raise DataError(f"{catalog.root}: split {name!r} leaves no clip for {side}")
    trained = {clip.label for clip in train}
    if absent := sorted(set(catalog.labels) - trained):
        raise DataError(f"{catalog.root}: split {name!r} leaves no training clip of class {absent[0]!r}")
    if len(trained) < 2:
        raise DataError(f"{catalog.root}: training needs at least two classes, split {name!r} gives {len(trained)}")
    notes = list(notes)
    if untested := sorted(trained - {clip.label for clip in test}):
        names = ", ".join(untested[:5]) + (", ..." if len(untested) > 5 else "")
        notes.append(f"{len(untested)} classes have no test clip: {names}")
    if name != "column" and (given := {clip.split for clip in catalog.clips if clip.split is not None}):
        notes.append(f"the data's own division ({', '.join(sorted(given))}) is not used: clips were dealt anew")
    if not catalog.groups:
        notes.append(
            "groups are unknown, so leakage from training into test cannot be excluded (--group-pattern names them)"
        )
    parts = [tuple(sorted(part, key=catalog.name)) for part in (train, test, validation)]
    siblings = known_siblings((*train, *validation), test)
    return Split(parts[0], parts[1], name, siblings, parts[2], tuple(notes))


def _require_groups(catalog: Catalog, split: str) -> None:
    if len(catalog.groups) < 2:
        known = "no group is known" if not catalog.groups else f"all clips are of group {catalog.groups[0]!r}"
        raise DataError(
            f"{catalog.root}: {known}, which split {split!r} needs; name groups by --group-pattern REGEX, a CSV column "
            "group or a file groups.csv (path,group), or take --split random"
        )


def _units(clips: Sequence[Clip]) -> list[int]:
    """What may not be torn apart, numbered by first appearance: a known group, else the clip itself."""
    numbers: dict[object, int] = {}
    return [numbers.setdefault(c.group if c.group is not None else (i,), len(numbers)) for i, c in enumerate(clips)]


def _divide(
    clips: Sequence[Clip], units: Sequence[int], fraction: float, seed: int, at_least_one: bool
) -> tuple[list[Clip], list[Clip]]:
    """Move whole units, visited in random order, to or fro wherever that brings the part taken closer to `fraction`.

    Closeness is the squared distance of every class's count, and of the total, from its target, over its size. A unit
    that holds the last clips of a class stays. With `at_least_one` the best admissible unit is taken if none came so.
    """
    labels = {label: i for i, label in enumerate(sorted({clip.label for clip in clips}))}
    table = np.zeros((max(units, default=-1) + 1, len(labels) + 1))  # (units, classes and the total): clips
    for clip, unit in zip(clips, units, strict=True):
        table[unit, [labels[clip.label], -1]] += 1
    size = table.sum(0)
    taken = np.zeros(len(table), dtype=bool)
    counts = np.zeros_like(size)

    def cost(counts: np.ndarray) -> float:
        return float((((counts - fraction * size) ** 2) / size).sum())

    order = np.random.default_rng(seed).permutation(len(table))
    moved = fraction > 0
    while moved:
        moved = False
        for unit in order:
            other = counts - table[unit] if taken[unit] else counts + table[unit]
            if (other < size).all() and cost(other) < cost(counts) - 1e-9:  # the cost falls each time: this ends
                counts, taken[unit], moved = other, not taken[unit], True
    if at_least_one and not taken.any():
        admissible = [unit for unit in order if (table[unit] < size).all()]
        taken[sorted(admissible, key=lambda unit: cost(table[unit]))[:1]] = True
    train = [clip for clip, unit in zip(clips, units, strict=True) if not taken[unit]]
    return train, [clip for clip, unit in zip(clips, units, strict=True) if taken[unit]]


def _integer(text: str, split: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UsageError(f"split {split!r}: {text!r} is no number; it can be {SPLIT_FORMS}")
    return int(text)
