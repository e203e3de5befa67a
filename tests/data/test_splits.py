"""What every split promises, on data of any shape: nothing lost, nothing torn apart, every class in training."""

from collections import Counter
from pathlib import Path

import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from kinegru.data.catalog import Catalog, Clip
from kinegru.data.splits import (
    Split,
    count_siblings,
    default_split,
    digest_of_splits,
    folder_names,
    hold_out,
    make_split,
    make_splits,
)
from kinegru.errors import DataError, UsageError


def make_catalog(clips: list[Clip], kind: str = "folder") -> Catalog:
    clips = sorted(clips, key=lambda clip: clip.path)
    return Catalog(Path("set"), tuple(clips), tuple(sorted({clip.label for clip in clips})), kind)


def people(count: int = 8, labels: tuple[str, ...] = ("bend", "run", "walk"), each: int = 2) -> Catalog:
    """`each` clips of every person for every action."""
    return make_catalog(
        [
            Clip(Path(f"set/{label}/p{person}_{n}.mp4"), label, f"p{person}")
            for label in labels
            for person in range(count)
            for n in range(each)
        ]
    )


@st.composite
def catalogs(draw: st.DrawFn, groups: bool = True) -> Catalog:
    """Two to four classes; groups within or across classes, of any size; some clips without a group."""
    labels = "abcd"[: draw(st.integers(2, 4))]
    names = st.sampled_from(["g1", "g2", "g3", "g4", "g5", "g6", None] if groups else [None])
    rows = draw(st.lists(st.tuples(st.sampled_from(labels), names), min_size=8, max_size=40))
    rows += [(label, f"{label}{n}" if groups else None) for label in labels for n in range(2)]
    return make_catalog([Clip(Path(f"set/{label}/{i}.mp4"), label, group) for i, (label, group) in enumerate(rows)])


def check(catalog: Catalog, split: Split, whole_groups: bool = True) -> None:
    assert sorted((*split.train, *split.test, *split.validation), key=lambda c: c.path) == list(catalog.clips)
    assert split.test and {clip.label for clip in split.train} == set(catalog.labels)
    known = {clip.group for clip in split.train} - {None}
    leaking = [clip for clip in split.test if clip.group in known]
    everywhere = all(clip.group is not None for clip in catalog.clips)
    assert split.siblings == (len(leaking) if leaking or everywhere else None)
    assert not (whole_groups and leaking)


@settings(deadline=None, max_examples=60)
@given(catalogs(), st.integers(0, 3))
def test_group_split_keeps_groups_whole_and_every_class_in_training(catalog: Catalog, seed: int) -> None:
    check(catalog, make_split(catalog, "group", seed))


@settings(deadline=None, max_examples=40)
@given(catalogs(), st.integers(0, 3))
def test_random_split_is_three_to_one_in_every_class(catalog: Catalog, seed: int) -> None:
    split = make_split(catalog, "random", seed)
    check(catalog, split, whole_groups=False)
    total, test = (Counter(clip.label for clip in clips) for clips in (catalog.clips, split.test))
    assert abs(len(split.test) - len(catalog.clips) / 4) <= 1
    assert all(abs(test[label] - total[label] / 4) <= 1 for label in catalog.labels)


@settings(deadline=None, max_examples=60)
@given(catalogs(), st.floats(0, 0.6), st.integers(0, 3))
def test_hold_out_keeps_groups_whole_and_every_class_in_training(catalog: Catalog, fraction: float, seed: int) -> None:
    train, validation = hold_out(catalog.clips, fraction, seed)
    assert sorted((*train, *validation), key=lambda c: c.path) == list(catalog.clips)
    assert {clip.label for clip in train} == set(catalog.labels)
    assert count_siblings(train, validation) == 0
    assert fraction > 0 or not validation


def test_hold_out_takes_fewer_rather_than_a_whole_class() -> None:
    lone = [Clip(Path(f"set/walk/{n}.mp4"), "walk", "ann") for n in range(4)]
    rest = [Clip(Path(f"set/run/{p}.mp4"), "run", p) for p in ("bob", "cyd", "dan", "eve")]
    train, validation = hold_out([*lone, *rest], 0.25)
    assert set(lone) <= set(train) and 1 <= len(validation) <= 2
    assert hold_out([lone[0], rest[0]], 0.5) == ((rest[0], lone[0]), ())


def test_hold_out_by_clip_where_groups_are_unknown() -> None:
    clips = [Clip(Path(f"set/{label}/{n}.mp4"), label) for label in ("run", "walk") for n in range(10)]
    _, validation = hold_out(clips, 0.2)
    assert Counter(clip.label for clip in validation) == {"run": 2, "walk": 2}


@pytest.mark.parametrize("split", ["group", "random", "folds:4:2"])
def test_same_seed_same_split_and_another_seed_another(split: str) -> None:
    catalog = people()
    assert make_split(catalog, split, 1) == make_split(catalog, split, 1)
    if split.startswith("folds") and Version(sklearn.__version__) < Version("1.8"):
        pytest.skip("scikit-learn before 1.8 does not shuffle groups that are alike")
    assert len({make_split(catalog, split, seed).test for seed in range(5)}) > 1
    backwards = Catalog(catalog.root, catalog.clips[::-1], catalog.labels, catalog.kind)
    assert hold_out(backwards.clips, seed=1) == hold_out(catalog.clips, seed=1)


def test_group_split_of_balanced_people_takes_a_quarter_of_them() -> None:
    split = make_split(people(), "group")
    assert len({clip.group for clip in split.test}) == 2 and len(split.test) == 12 and not split.notes


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 5), st.integers(0, 3))
def test_folds_test_every_clip_once(folds: int, seed: int) -> None:
    for catalog in (people(), make_catalog([Clip(c.path, c.label) for c in people().clips])):
        splits = make_splits(catalog, f"folds:{folds}", seed)
        assert [split.name for split in splits] == [f"folds:{folds}:{i}" for i in range(1, folds + 1)]
        for split in splits:
            check(catalog, split)
        assert sorted((c for s in splits for c in s.test), key=lambda c: c.path) == list(catalog.clips)


def test_leave_one_group_out_tests_every_group_once() -> None:
    catalog = people(3)
    splits = make_splits(catalog, "leave-one-group-out")
    assert [{clip.group for clip in split.test} for split in splits] == [{"p0"}, {"p1"}, {"p2"}]
    for split in splits:
        check(catalog, split)


def test_no_sibling_is_claimed_where_some_groups_are_not_known() -> None:
    clips = [Clip(Path(f"set/{a}/{p}.mp4"), a, p) for a in ("run", "walk") for p in ("ann", "bob")]
    loose = [Clip(Path(f"set/{a}/x.mp4"), a) for a in ("run", "walk")]  # perhaps of ann
    assert make_split(make_catalog(clips), "leave-one-group-out:ann").siblings == 0
    assert make_split(make_catalog([*clips, *loose]), "leave-one-group-out:ann").siblings is None


def test_every_fold_has_a_folder_of_its_own() -> None:
    names = ["p 1", "p-1", "p:1", "P-1", "q", "é"]
    catalog = make_catalog([Clip(Path(f"set/{a}/{n}.mp4"), a, n) for a in ("run", "walk") for n in names])
    folders = folder_names(make_splits(catalog, "leave-one-group-out"))
    assert len({folder.lower() for folder in folders}) == len(names)
    assert "leave-one-group-out-q" in folders and not any(set(folder) & set(" :/") for folder in folders)


def test_a_division_of_the_data_that_is_not_used_is_named() -> None:
    parts = {"ann": "train", "bob": "val", "cyd": "train", "dan": "train"}
    clips = [Clip(Path(f"set/{a}/{p}.mp4"), a, None, parts[p]) for a in ("run", "walk") for p in parts]
    catalog = make_catalog(clips)
    split = make_split(catalog, default_split(catalog))
    assert split.name == "random" and any("own division (train, val) is not used" in note for note in split.notes)


def test_a_split_has_another_digest_where_a_clip_has_another_content(tmp_path: Path) -> None:
    clips = [Clip(tmp_path / f"{a}-{p}.mp4", a, p) for a in ("run", "walk") for p in ("ann", "bob", "cyd")]
    for clip in clips:
        clip.path.write_bytes(clip.path.name.encode())
    catalog = make_catalog(clips)
    split = [make_split(catalog, "leave-one-group-out:ann")]
    before = digest_of_splits(catalog, split)
    clips[0].path.write_bytes(b"something else")
    assert digest_of_splits(catalog, split) != before


def test_a_group_name_may_hold_a_colon() -> None:
    catalog = make_catalog([Clip(Path(f"set/{a}/{p}.mp4"), a, f"cam:{p}") for a in ("run", "walk") for p in "ab"])
    assert len(make_split(catalog, "leave-one-group-out:cam:b").test) == 2


def test_column_is_taken_as_it_stands() -> None:
    parts = {"run": ("train", "val", "test", None), "walk": ("train", "train", "test", "test")}
    clips = [Clip(Path(f"set/{a}/{i}.mp4"), a, f"g{i}", s) for a, values in parts.items() for i, s in enumerate(values)]
    catalog = make_catalog(clips)
    assert default_split(catalog) == "column"
    split = make_split(catalog, "column")
    for side, value in ((split.train, "train"), (split.validation, "val"), (split.test, "test")):
        assert set(side) == {clip for clip in clips if clip.split == value}
    assert split.siblings == 0 and any("1 clips have an empty split" in note for note in split.notes)


def test_siblings_in_validation_count_as_well() -> None:
    clips = [
        Clip(Path(f"set/{a}/{s}.mp4"), a, f"{a}{s != 'train'}", s)
        for a in ("run", "walk")
        for s in ("train", "val", "test")
    ]
    assert make_split(make_catalog(clips), "column").siblings == 2


def test_unknown_groups_are_said_wherever_they_matter() -> None:
    catalog = make_catalog([Clip(c.path, c.label) for c in people().clips])
    assert default_split(catalog) == "random" and default_split(people()) == "group"
    assert any("leakage" in note and "cannot be excluded" in note for note in make_split(catalog, "random").notes)
    for split in ("group", "leave-one-group-out:p1"):
        with pytest.raises(DataError, match=r"no group is known.*--group-pattern REGEX"):
            make_split(catalog, split)
    with pytest.raises(DataError, match="all clips are of group 'ann'"):
        make_split(make_catalog([Clip(c.path, c.label, "ann") for c in catalog.clips]), "group")


def test_a_class_without_test_clips_is_noted_and_one_without_training_clips_refused() -> None:
    clips = [*people(4, ("run", "walk")).clips, Clip(Path("set/bend/p0.mp4"), "bend", "p0")]
    catalog = make_catalog(clips)
    assert any("1 classes have no test clip: bend" in note for note in make_split(catalog, "group").notes)
    with pytest.raises(DataError, match="no training clip of class 'bend'"):
        make_split(catalog, "leave-one-group-out:p0")
    with pytest.raises(DataError, match="at least two classes"):
        make_split(people(4, ("run",)), "group")


@pytest.mark.parametrize(
    "split",
    ["", "grouped", "official", "official:", "official:x", "folds", "folds:5", "folds:5:0", "folds:5:6", "folds:x:1",
     "folds:5:-1", "leave-one-group-out", "random:3", "column:x"],
)  # fmt: skip
def test_a_split_that_is_none_is_wrong_use(split: str) -> None:
    with pytest.raises(UsageError) as error:
        make_split(people(), split)
    assert "\n" not in str(error.value) and split in str(error.value)


def test_splits_the_data_does_not_allow_are_refused_in_one_line() -> None:
    catalog = people(3)
    for split, says in (
        ("folds:4:1", "3 groups cannot make 4 folds"),
        ("folds:1:1", "cannot make 1 folds"),
        ("leave-one-group-out:zoe", "no group 'zoe'; there are p0, p1, p2"),
        ("column", "no clip says whether"),
        ("official:1", "only UCF101 and HMDB51"),
    ):
        with pytest.raises(DataError, match=says) as error:
            make_split(catalog, split)
        assert "\n" not in str(error.value)


def test_fights_split_by_source_film_without_leak_and_random_with(shared: Path) -> None:
    from kinegru.data.catalog import load_catalog

    catalog = load_catalog(shared / "data" / "fights")
    folds = make_splits(catalog, default_split(catalog)) + make_splits(catalog, "folds:5")
    assert all(split.siblings == 0 and len({clip.label for clip in split.test}) == 2 for split in folds)
    assert make_split(catalog, "random").siblings > 50
