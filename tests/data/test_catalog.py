"""DATA in all its forms becomes the same catalog, and what cannot be used is named in one line."""

from pathlib import Path

import pytest

from kinegru.data.catalog import Clip, load_catalog
from kinegru.errors import DataError, KineGRUError, UsageError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def table(root: Path, text: str, encoding: str = "utf-8") -> Path:
    path = root / "clips.csv"
    path.write_text(text, encoding=encoding)
    return path


def one_line(error: pytest.ExceptionInfo[KineGRUError]) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


def test_folder_names_are_labels_and_clips_are_sorted(tmp_path: Path) -> None:
    touch(tmp_path, "walk/b.mp4", "walk/a.AVI", "run/c.mkv", "walk/.hidden.mp4", "walk/notes.txt", "walk/Thumbs.db")
    touch(tmp_path, "run fast/it's «ü» 走.mp4", "README.md", "walk/deeper/d.mp4")
    catalog = load_catalog(tmp_path)
    assert catalog.kind == "folder"
    assert catalog.labels == ("run", "run fast", "walk")
    assert [catalog.name(c) for c in catalog.clips] == [
        "run fast/it's «ü» 走.mp4",
        "run/c.mkv",
        "walk/a.AVI",
        "walk/b.mp4",
    ]
    assert all(clip.group is None and clip.split is None and clip.path.exists() for clip in catalog.clips)


def test_split_folders_give_the_split_and_not_the_label(tmp_path: Path) -> None:
    touch(tmp_path, "train/walk/a.mp4", "train/run/b.mp4", "val/walk/c.mp4", "test/run/d.mp4")
    catalog = load_catalog(tmp_path)
    assert catalog.labels == ("run", "walk")
    assert {catalog.name(c): c.split for c in catalog.clips} == {
        "train/walk/a.mp4": "train", "train/run/b.mp4": "train", "val/walk/c.mp4": "val", "test/run/d.mp4": "test",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([], "no class folder with videos"),
        (["a.mp4"], "in no class folder"),
        (["set/walk/a.mp4"], "a folder deeper"),
        (["walk/notes.txt"], "no class folder with videos"),
    ],
)
def test_folder_without_clips_says_what_is_expected(tmp_path: Path, files: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says) as error:
        load_catalog(touch(tmp_path, *files))
    assert str(tmp_path) in one_line(error)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_is_read_with_and_without_byte_order_mark_and_any_separator(
    tmp_path: Path, encoding: str, separator: str
) -> None:
    text = "Label, PATH ,group,split,extra\nwalk,a/1.mp4,ann,train,x\n\nrun,a/2.mp4,,TEST,\n".replace(",", separator)
    catalog = load_catalog(table(tmp_path, text, encoding))
    assert catalog.kind == "csv"
    assert catalog.clips == (
        Clip(tmp_path / "a/1.mp4", "walk", "ann", "train"),
        Clip(tmp_path / "a/2.mp4", "run", None, "test"),
    )
    assert [catalog.name(clip) for clip in catalog.clips] == ["a/1.mp4", "a/2.mp4"]
    assert any("1 of 2 clips have no group" in note for note in catalog.notes)


def test_csv_keeps_missing_files_quotes_and_absolute_paths(tmp_path: Path) -> None:
    outside = tmp_path.parent / "elsewhere.mp4"
    catalog = load_catalog(table(tmp_path, f'path,label\n"a, b.mp4",walk\n{outside},run\n'))
    assert {clip.path for clip in catalog.clips} == {tmp_path / "a, b.mp4", outside}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,class\na.mp4,walk\n", r":1: no column 'label'"),
        ("", r":1: no column 'path'"),
        ("path,label,label\na.mp4,x,y\n", r":1: a column is named twice"),
        ("path,label\na.mp4,walk\nb.mp4,\n", r":3: no label for 'b.mp4'"),
        ("path,label\na.mp4,walk\n\n./a.mp4,run\n", r":4: './a.mp4' stands already on line 2"),
        ("path,label,split\na.mp4,walk,training\n", r":2: split is 'training'; it must be train, val or test"),
        ("path,label\na,b.mp4,walk\n", r":2: 3 cells where the header has 2"),
        ("path,label\n,walk\nb.mp4,\n", r":2: no path \(and 1 more"),
        ("path,label\n", r"no line that names a clip"),
        ('path,label\n"' + "x" * 200_000 + '",walk\n', r": field larger than"),
    ],
)
def test_faulty_csv_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as error:
        load_catalog(table(tmp_path, text))
    assert "clips.csv" in one_line(error)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    for content in (b"\x00\x01\x02", b"\xff\xfe\xfa", "path,label\n".encode("utf-16")):
        (tmp_path / "clip.mp4").write_bytes(content)
        with pytest.raises(DataError, match="UTF-8 text") as error:
            load_catalog(tmp_path / "clip.mp4")
        assert "clip.mp4" in one_line(error)


def test_groups_come_from_the_pattern_before_the_csv(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label,group\nwalk/ann_1.mp4,walk,x\nwalk/bob_1.mp4,walk,x\n")
    assert load_catalog(path).groups == ("x",)
    assert load_catalog(path, group_pattern=r"/([a-z]+)_\d").groups == ("ann", "bob")


def test_a_clip_the_pattern_does_not_match_is_its_own_group_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "walk/ann_1.mp4", "walk/ann_2.mp4", "walk/42.mp4")
    catalog = load_catalog(tmp_path, group_pattern=r"([a-z]+)_")
    assert [clip.group for clip in catalog.clips] == ["walk/42.mp4", "ann", "ann"]
    assert any("1 of 3 clips" in note for note in catalog.notes)


def test_wrong_group_patterns_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "walk/ann_1.mp4")
    for pattern, kind, says in (
        ("([a-z", UsageError, "no regular expression"),
        ("[a-z]+_", UsageError, "needs parentheses"),
        ("(zzz)", DataError, "matches no clip"),
        ("(zzz)?", DataError, "matches no clip"),
    ):
        with pytest.raises(kind, match=says) as error:
            load_catalog(tmp_path, group_pattern=pattern)
        one_line(error)


@pytest.mark.parametrize("header", ["clip,source\n", ""])
def test_groups_csv_in_the_root_gives_groups_under_any_header(tmp_path: Path, header: str) -> None:
    touch(tmp_path, "walk/a.mp4", "walk/b.mp4", "run/c.mp4")
    (tmp_path / "groups.csv").write_text(f"{header}walk/a.mp4,film\nrun/c.mp4,film\nrun/gone.mp4,other\n")
    catalog = load_catalog(tmp_path)
    assert {catalog.name(c): c.group for c in catalog.clips} == {
        "walk/a.mp4": "film",
        "walk/b.mp4": None,
        "run/c.mp4": "film",
    }
    assert any("1 clips that are not there, e.g. run/gone.mp4" in note for note in catalog.notes)


@pytest.mark.parametrize("line", ["walk/a.mp4", "walk/a.mp4,x,y", "walk/a.mp4,other"])
def test_faulty_groups_csv_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    touch(tmp_path, "walk/a.mp4")
    (tmp_path / "groups.csv").write_text(f"clip,source\nwalk/a.mp4,film\n{line}\n")
    with pytest.raises(DataError, match=r"groups\.csv:3: ") as error:
        load_catalog(tmp_path)
    one_line(error)


def test_description_names_no_machine_path_and_follows_what_is_in_the_data(tmp_path: Path) -> None:
    here, there = (touch(tmp_path / name / "set", "walk/ann_1.mp4", "run/bob_1.mp4") for name in ("here", "there"))
    described = load_catalog(here, r"([a-z]+)_").describe()
    assert described == load_catalog(there, r"([a-z]+)_").describe()
    assert {key: described[key] for key in ("kind", "name", "clips", "classes", "groups")} == {
        "kind": "folder", "name": "set", "clips": 2, "classes": 2, "groups": 2,
    }  # fmt: skip
    digests = {described["digest"], load_catalog(there).digest, load_catalog(touch(there, "run/c.mp4")).digest}
    assert len(digests) == 3


def test_fights_and_weizmann_have_their_sources_and_persons_as_groups(shared: Path) -> None:
    fights = load_catalog(shared / "data" / "fights")
    assert (len(fights.clips), fights.labels, len(fights.groups)) == (300, ("fight", "noFight"), 46)
    assert not fights.notes and all(clip.group for clip in fights.clips)
    weizmann = load_catalog(shared / "data" / "weizmann", r"([a-z]+)_[^/]+$")
    assert (len(weizmann.clips), len(weizmann.labels), len(weizmann.groups)) == (90, 10, 9)
