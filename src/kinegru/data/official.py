"""UCF101 and HMDB51 as they are distributed: their file names, their groups and their three official splits each.

* UCF101 (Soomro, Zamir, Shah, 2012): `<Class>/v_<Class>_gNN_cMM.avi`; clips with one g in one class are cut from one
  video. One class folder is `HandstandPushups` while its files say `HandStandPushups`, so case is not looked at.
* HMDB51 (Kuehne et al., 2011): `<class>/<video>_<class>_<body>_<camera>_np<people>_<view>_<quality>_<n>.avi`; one video
  gives clips of several classes. Its lists flag a clip 1 for training, 2 for test and 0 for neither.
* A clip is known by class and stem: the sets may be transcoded to another container.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kinegru.errors import DataError, UsageError

if TYPE_CHECKING:
    from kinegru.data.catalog import Clip

KINDS = ("ucf101", "hmdb51")
VIDEO_FOLDERS = frozenset({"ucf-101", "ucf101", "hmdb51_org", "hmdb51", "hmdb-51"})
# (training, test) clips of splits 1, 2, 3
COUNTS = {
    "ucf101": ((9537, 3783), (9586, 3734), (9624, 3696)),
    "hmdb51": ((3570, 1530), (3570, 1530), (3570, 1530)),
}
_LIST_FOLDERS = {
    "ucf101": ("", "ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist", "ucf101"),
    "hmdb51": ("", "testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits", "test_train_splits"),
}
_UCF101_NAME = re.compile(r"v_(?P<action>\w+)_g(?P<group>\d+)_c\d+$", re.IGNORECASE)
_HMDB51_NAME = re.compile(r"(?P<video>.+)_[hful]_(?:cm|nm)_np\d+_(?:fr|ba|le|ri)_(?:goo|med|bad)_\d+$", re.IGNORECASE)


def group_of(kind: str, path: Path, label: str) -> str | None:
    """The source of a clip by its file name, None where the name is not of the benchmark's form.

    >>> group_of("ucf101", Path("YoYo/v_YoYo_g25_c04.avi"), "YoYo")
    'YoYo_g25'
    >>> group_of("hmdb51", Path("walk/Crash_walk_f_cm_np1_le_med_7.avi"), "walk")
    'Crash'
    """
    if kind == "ucf101":
        match = _UCF101_NAME.match(path.stem)
        return f"{label}_g{match['group']}" if match else None
    match = _HMDB51_NAME.match(path.stem)
    if match is None:
        return None
    video, ending = match["video"], f"_{label}"
    return video[: -len(ending)] if video.lower().endswith(ending.lower()) and len(video) > len(ending) else video


def canonical_label(label: str) -> str:
    """UCF101's one class that is written in two ways gets the name in `classInd.txt`.

    >>> canonical_label("HandStandPushups"), canonical_label("YoYo")
    ('HandstandPushups', 'YoYo')
    """
    return "HandstandPushups" if label.lower() == "handstandpushups" else label


def kind_of(paths: Iterable[Path], *folders: Path) -> str:
    """Which benchmark: ucf101 or hmdb51 where more than half of the clips are named so, else folder.

    Where the official lists lie in or below one of `folders`, one clip so named is enough.

    >>> kind_of([Path("YoYo/v_YoYo_g25_c04.avi")])
    'ucf101'
    """
    stems = [path.stem for path in paths]
    for kind, pattern in (("ucf101", _UCF101_NAME), ("hmdb51", _HMDB51_NAME)):
        named = sum(pattern.match(stem) is not None for stem in stems)
        if 2 * named > len(stems) or (named and any(_holds_lists(kind, path) for path in _places(kind, folders))):
            return kind
    return "folder"


def find_lists(kind: str, root: Path, data: Path, lists: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder with the official lists: `lists`, else in the root, in its usual sub-folders, or beside it.

    Raises UsageError where `lists` is given and holds none.
    """
    if lists is not None:
        found = next((path for path in _places(kind, [Path(lists)]) if _holds_lists(kind, path)), None)
        if found is None:
            raise UsageError(f"{lists}: holds no official {kind.upper()} lists ({_list_name(kind)})")
        return found
    beside = [root, data, root.resolve().parent, data.resolve().parent]
    return next((path for path in _places(kind, beside) if _holds_lists(kind, path)), None)


def usual_list_folder(kind: str) -> str:
    """The name of the folder in which the official lists are distributed.

    >>> usual_list_folder("ucf101")
    'ucfTrainTestlist'
    """
    return _LIST_FOLDERS[kind][1]


def read_lists(kind: str, folder: Path, number: int) -> tuple[list[str], list[str]]:
    """The names `<class>/<file>` in training and in test of split `number` (1, 2 or 3).

    Raises DataError for a list that is missing or has a line of another form.
    """
    return _read_ucf101(folder, number) if kind == "ucf101" else _read_hmdb51(folder, number)


def official_split(
    kind: str, clips: Iterable[Clip], folder: Path, number: int
) -> tuple[list[Clip], list[Clip], list[str]]:
    """Training clips, test clips and notes of an official split; clips no list names are left out.

    Raises DataError where none of the listed clips is at hand.
    """
    clips = list(clips)
    notes: list[str] = []
    sides: list[list[Clip]] = []
    missing: list[str] = []
    absent: set[str] = set()
    listed = read_lists(kind, folder, number)
    for side, names, count in zip(("training", "test"), listed, COUNTS[kind][number - 1], strict=True):
        if len(names) != count:
            notes.append(f"the list of split {number} names {len(names)} {side} clips, the published one {count}")
        found, lost, classes = match(clips, names)
        sides.append(list(found.values()))
        missing += lost
        absent |= classes
    if not sides[0] and not sides[1]:
        raise DataError(f"{folder}: none of the clips listed for split {number} is in the data")
    if absent:
        notes.append(f"{len(absent)} of the {kind.upper()} classes are not in the data, e.g. {min(absent)}")
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        notes.append(f"{len(missing)} clips of official split {number} are missing: {some}")
    return sides[0], sides[1], notes


def match(clips: Iterable[Clip], names: Iterable[str]) -> tuple[dict[str, Clip], list[str], set[str]]:
    """The clip of every listed name, the names that are missing, and the classes of which no clip is at hand."""
    at_hand = {_key(clip.label, clip.path.stem): clip for clip in clips}
    labels = {key.partition("/")[0] for key in at_hand}
    found: dict[str, Clip] = {}
    missing: list[str] = []
    absent: set[str] = set()
    for name in names:
        label, _, file = name.partition("/")
        clip = at_hand.get(_key(label, Path(file).stem))
        if clip is not None:
            found[name] = clip
        elif label.lower() in labels:
            missing.append(name)
        else:
            absent.add(label)
    return found, missing, absent


def _key(label: str, stem: str) -> str:
    return f"{label}/{stem}".lower()


def _places(kind: str, folders: Iterable[Path]) -> list[Path]:
    return [folder / inner for folder in folders for inner in _LIST_FOLDERS[kind]]


def _list_name(kind: str) -> str:
    return "trainlist01.txt, testlist01.txt" if kind == "ucf101" else "<class>_test_split1.txt"


def _holds_lists(kind: str, folder: Path) -> bool:
    if kind == "ucf101":
        return (folder / "trainlist01.txt").is_file() or (folder / "testlist01.txt").is_file()
    return folder.is_dir() and next(folder.glob("[!.]*_test_split1.txt"), None) is not None


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); the official split needs it") from None
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _read_ucf101(folder: Path, number: int) -> tuple[list[str], list[str]]:
    train: list[str] = []
    test: list[str] = []
    for file, names in ((f"trainlist{number:02d}.txt", train), (f"testlist{number:02d}.txt", test)):
        for line, text in _lines(folder / file):
            name = text.split()[0]  # training lines end with the number of the class
            if name.count("/") != 1:
                raise DataError(f"{folder / file}:{line}: {text!r} is not <class>/<file>")
            names.append(name)
    return train, test


def _read_hmdb51(folder: Path, number: int) -> tuple[list[str], list[str]]:
    sides: dict[str, list[str]] = {"1": [], "2": [], "0": []}
    ending = f"_test_split{number}.txt"
    files = sorted(folder.glob(f"[!.]*{ending}"))  # archives packed on a Mac hold ._CLASS files beside the lists
    if not files:
        raise DataError(f"{folder}: holds no <class>{ending}; the official split needs it")
    for path in files:
        label = path.name[: -len(ending)]
        for line, text in _lines(path):
            name, _, flag = text.rpartition(" ")
            if flag not in sides or not name:
                raise DataError(f"{path}:{line}: {text!r} is not a file name and 0, 1 or 2")
            sides[flag].append(f"{label}/{name.strip()}")
    return sides["1"], sides["2"]
