"""UCF101 and HMDB51 under their true file names, from miniature trees and from the published lists."""

from collections import Counter
from pathlib import Path

import pytest

from kinegru.data import official
from kinegru.data.catalog import Catalog, Clip, load_catalog
from kinegru.data.splits import default_split, make_split, make_splits
from kinegru.errors import DataError, UsageError

UCF101_CLASSES = ("ApplyEyeMakeup", "HandstandPushups", "YoYo")
HMDB51_VIDEOS = {
    "brush_hair": ("April_09", "Brushing_Her_Hair__[_NEW_AUDIO_]_UPDATED!!!!"),
    "walk": ("Crash", "The_House_on_Haunted_Hill"),
    "run": ("Crash", "metacafe_coolsoccer"),
}


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def ucf101_name(label: str, group: int, clip: int) -> str:
    return f"v_{'HandStandPushups' if label == 'HandstandPushups' else label}_g{group:02d}_c{clip:02d}.avi"


@pytest.fixture
def ucf101(tmp_path: Path) -> Path:
    """Three classes, four groups of two clips; group 1 is the test of split 1, as in the published lists (CR LF)."""
    root = tmp_path / "ucf"
    for label in UCF101_CLASSES:
        for group in range(1, 5):
            for clip in (1, 2):
                write(root / "UCF-101" / label / ucf101_name(label, group, clip))
    for number in (1, 2, 3):
        lines: dict[bool, list[str]] = {True: [], False: []}
        for index, label in enumerate(UCF101_CLASSES, 1):
            for group in range(1, 5):
                for clip in (1, 2):
                    name = f"{label}/{ucf101_name(label, group, clip)}"
                    lines[group == number].append(name if group == number else f"{name} {index}")
        for test, stem in ((True, "testlist"), (False, "trainlist")):
            write(root / "ucfTrainTestlist" / f"{stem}{number:02d}.txt", "\r\n".join(lines[test]) + "\r\n")
    return root


@pytest.fixture
def hmdb51(tmp_path: Path) -> Path:
    """Three classes, two videos of three clips each: flags 1, 2 and 0."""
    root = tmp_path / "hmdb"
    for label, videos in HMDB51_VIDEOS.items():
        lines = []
        for video, flag in zip(videos, (1, 2), strict=True):
            for clip in range(3):
                name = f"{video}_{label}_f_cm_np10_ba_med_{clip}.avi"
                write(root / "hmdb51_org" / label / name)
                lines.append(f"{name} {flag if clip else 0} ")
        for number in (1, 2, 3):
            write(root / "testTrainMulti_7030_splits" / f"{label}_test_split{number}.txt", "\n".join(lines) + "\n")
    return root


def test_ucf101_root_gives_official_splits_and_groups(ucf101: Path) -> None:
    catalog = load_catalog(ucf101)
    assert (catalog.kind, catalog.labels, len(catalog.clips)) == ("ucf101", UCF101_CLASSES, 24)
    assert catalog.groups[:2] == ("ApplyEyeMakeup_g01", "ApplyEyeMakeup_g02") and len(catalog.groups) == 12
    assert default_split(catalog) == "official:1"
    for number, split in enumerate(make_splits(catalog, "official"), 1):
        assert (split.name, len(split.train), len(split.test), split.siblings) == (f"official:{number}", 18, 6, 0)
        assert {clip.group for clip in split.test} == {f"{label}_g{number:02d}" for label in UCF101_CLASSES}


@pytest.mark.parametrize("folder", ["HandstandPushups", "HandStandPushups", "handstandpushups"])
def test_handstand_pushups_match_under_either_spelling_of_the_folder(ucf101: Path, folder: str) -> None:
    (ucf101 / "UCF-101" / "HandstandPushups").rename(ucf101 / "UCF-101" / folder)
    catalog = load_catalog(ucf101)
    assert catalog.labels == UCF101_CLASSES
    split = make_split(catalog, "official:2")
    assert Counter(clip.label for clip in split.test) == dict.fromkeys(UCF101_CLASSES, 2)
    assert {clip.group for clip in split.test if "and" in clip.label} == {"HandstandPushups_g02"}
    assert not any("missing" in note for note in split.notes)


def test_class_folders_may_lie_in_the_root_and_lists_beside_it_or_anywhere(ucf101: Path, tmp_path: Path) -> None:
    beside = load_catalog(ucf101 / "UCF-101")
    assert beside.kind == "ucf101" and make_split(beside, "official:1") == make_split(
        load_catalog(ucf101), "official:1"
    )
    (ucf101 / "ucfTrainTestlist").rename(tmp_path / "lists")
    without = load_catalog(ucf101)
    assert without.kind == "ucf101" and default_split(without) == "group"
    with pytest.raises(DataError, match="no official lists found; put the folder ucfTrainTestlist"):
        make_split(without, "official:1")
    assert len(make_split(load_catalog(ucf101, lists=tmp_path / "lists"), "official:1").test) == 6
    with pytest.raises(UsageError, match="holds no official UCF101 lists"):
        load_catalog(ucf101, lists=tmp_path)


def test_lists_in_the_root_of_the_class_folders_are_no_class(ucf101: Path) -> None:
    (ucf101 / "ucfTrainTestlist").rename(ucf101 / "UCF-101" / "ucfTrainTestlist")
    catalog = load_catalog(ucf101 / "UCF-101")
    assert catalog.labels == UCF101_CLASSES and catalog.lists == ucf101 / "UCF-101" / "ucfTrainTestlist"


def test_transcoded_clips_are_found_by_stem(ucf101: Path) -> None:
    for path in sorted((ucf101 / "UCF-101").glob("*/*.avi")):
        path.rename(path.with_suffix(".mp4"))
    assert len(make_split(load_catalog(ucf101), "official:3").test) == 6


def test_missing_clips_and_classes_are_counted_and_named_but_not_fatal(ucf101: Path) -> None:
    (ucf101 / "UCF-101" / "YoYo" / "v_YoYo_g01_c02.avi").unlink()
    for path in (ucf101 / "UCF-101" / "ApplyEyeMakeup").iterdir():
        path.unlink()
    split = make_split(load_catalog(ucf101), "official:1")
    assert (len(split.train), len(split.test)) == (12, 3)
    assert any("1 clips of official split 1 are missing: YoYo/v_YoYo_g01_c02.avi" in note for note in split.notes)
    assert any("1 of the UCF101 classes are not in the data, e.g. ApplyEyeMakeup" in note for note in split.notes)
    assert any("names 6 test clips, the published one 3783" in note for note in split.notes)


def test_lists_that_name_nothing_at_hand_are_refused(ucf101: Path) -> None:
    for number in (1, 2, 3):
        for stem in ("testlist", "trainlist"):
            (ucf101 / "ucfTrainTestlist" / f"{stem}{number:02d}.txt").write_text("Surfing/v_Surfing_g01_c01.avi\n")
    with pytest.raises(DataError, match="none of the clips listed for split 1"):
        make_split(load_catalog(ucf101), "official:1")
    (ucf101 / "ucfTrainTestlist" / "testlist02.txt").write_text("v_Surfing_g01_c01.avi\n")
    with pytest.raises(DataError, match=r"testlist02\.txt:1: .* is not <class>/<file>"):
        make_split(load_catalog(ucf101), "official:2")


def test_hmdb51_flags_are_training_test_and_unused(hmdb51: Path) -> None:
    catalog = load_catalog(hmdb51)
    assert (catalog.kind, catalog.labels, len(catalog.clips)) == ("hmdb51", ("brush_hair", "run", "walk"), 18)
    split = make_split(catalog, default_split(catalog))
    assert (split.name, len(split.train), len(split.test)) == ("official:1", 6, 6)
    assert not {clip.path.stem[-1] for clip in (*split.train, *split.test)} & {"0"}


def test_hmdb51_groups_are_source_videos_across_classes(hmdb51: Path) -> None:
    groups = {(clip.label, clip.group) for clip in load_catalog(hmdb51).clips}
    assert groups == {(label, video) for label, videos in HMDB51_VIDEOS.items() for video in videos}


def test_hmdb51_list_with_another_flag_is_named_with_its_line(hmdb51: Path) -> None:
    (hmdb51 / "testTrainMulti_7030_splits" / "walk_test_split1.txt").write_text("a.avi 1\nb.avi 3\n")
    with pytest.raises(DataError, match=r"walk_test_split1\.txt:2: .* 0, 1 or 2"):
        make_split(load_catalog(hmdb51), "official:1")


def test_official_splits_are_refused_for_other_data_and_numbers(ucf101: Path, tmp_path: Path) -> None:
    for name in ("walk/a.mp4", "run/b.mp4"):
        write(tmp_path / "own" / name)
    with pytest.raises(DataError, match="only UCF101 and HMDB51 have official splits"):
        make_split(load_catalog(tmp_path / "own"), "official:1")
    with pytest.raises(UsageError, match="official splits 1, 2 and 3"):
        make_split(load_catalog(ucf101), "official:4")


@pytest.mark.parametrize("kind", official.KINDS)
def test_published_lists_have_their_published_counts_and_nothing_in_common(shared: Path, kind: str) -> None:
    folder = official.find_lists(kind, shared / "data" / "splits" / kind, shared / "data" / "splits" / kind)
    assert folder is not None
    for number, counts in enumerate(official.COUNTS[kind], 1):
        train, test = official.read_lists(kind, folder, number)
        assert (len(train), len(test)) == counts
        names = {name.lower() for name in (*train, *test)}
        assert len(names) == sum(counts)  # no clip twice, none on both sides, and case tells none apart
        labels = Counter(name.partition("/")[0] for name in test)
        assert len(labels) == (101 if kind == "ucf101" else 51)
        assert kind == "ucf101" or set(labels.values()) == {30}


def published(shared: Path, kind: str) -> Catalog:
    """Every clip the lists name, as if it were there."""
    folder = official.find_lists(kind, shared / "data" / "splits" / kind, Path())
    assert folder is not None
    names = sorted({n for number in (1, 2, 3) for side in official.read_lists(kind, folder, number) for n in side})
    clips = []
    for name in names:
        label = name.partition("/")[0]
        clips.append(Clip(Path(name), label, official.group_of(kind, Path(name), label)))
    return Catalog(Path(), tuple(clips), tuple(sorted({clip.label for clip in clips})), kind, folder)


def test_ucf101_official_splits_hold_no_sibling_and_a_random_split_is_full_of_them(shared: Path) -> None:
    catalog = published(shared, "ucf101")
    assert len(catalog.clips) == 13320 and len(catalog.groups) == 101 * 25
    assert all(clip.group is not None for clip in catalog.clips)
    first = make_split(catalog, "official:1")
    assert (len(first.train), len(first.test), first.siblings, first.notes) == (9537, 3783, 0, ())
    random = make_split(catalog, "random")
    assert len(random.test) == 3330 and random.siblings > 0.99 * len(random.test)
    grouped = make_split(catalog, "group")
    assert grouped.siblings == 0 and abs(len(grouped.test) - 3330) < 34  # 3:1 to a percent
    share = Counter(clip.label for clip in grouped.test)
    total = Counter(clip.label for clip in catalog.clips)
    assert all(0.2 < share[label] / total[label] < 0.3 for label in catalog.labels)


def test_hmdb51_official_splits_share_no_video_within_a_class(shared: Path) -> None:
    catalog = published(shared, "hmdb51")
    assert all(clip.group is not None for clip in catalog.clips)
    split = make_split(catalog, "official:1")
    assert (len(split.train), len(split.test), split.notes) == (3570, 1530, ())
    trained = {(clip.label, clip.group) for clip in split.train}
    assert not any((clip.label, clip.group) in trained for clip in split.test)
    assert 0 < split.siblings < 0.35 * len(split.test)  # one video gives clips of several classes
