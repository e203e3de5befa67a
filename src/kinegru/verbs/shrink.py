"""`kinegru shrink DATA OUT`: small copies of all clips, for training that decodes them again in every epoch."""

from __future__ import annotations

from kinegru.console import counted, progress_bar
from kinegru.data.shrink import Shrunk, shrink_data


def shrink(
    data: str,
    out: str,
    *,
    short_side: int = 256,
    crf: int = 18,
    workers: int | None = None,
    lists: str | None = None,
) -> Shrunk:
    """Copy every clip of DATA to the folder OUT, smaller; OUT is then given to the other verbs in place of DATA.

    Where frames are not cached as features (profile tail and full), every epoch decodes every clip: that of large ones
    takes longer than the network does. Classes, groups, lists, the number of frames and their rate stay.

    Args:
        data: Folder of class folders, CSV with path,label[,group,split], UCF101 or HMDB51 root.
        out: Folder for the copies; the same command goes on where it stopped.
        short_side: Of the copies, in pixels, even; about 1.15 times the size that is trained at, or more.
        crf: Quality of x264: 18 can hardly be told from the clip, 23 is half as large.
        workers: Copying processes; by default one a core, 0 copies in this one.
        lists: Folder of the official split lists, where it is not beside the clips.

    Raises:
        DataError: where DATA holds no clips, or two of them would have one copy.
        UsageError: where OUT holds something else.
    """
    with progress_bar("copying") as track:
        return shrink_data(data, out, short_side, crf, workers, track, lists)


def show(shrunk: Shrunk) -> None:
    """Print what was done for people."""
    before, after = (size / 2**20 for size in (shrunk.bytes_before, shrunk.bytes_after))
    kept = f", {shrunk.kept} were there" if shrunk.kept else ""
    print(f"{counted(shrunk.copied, 'clip')} of {shrunk.clips} copied{kept}: {before:.1f} MB became {after:.1f} MB")
    for what, named in (("damaged, its good frames were copied", shrunk.damaged), ("not copied", shrunk.unreadable)):
        for name, reason in sorted(named.items()):
            print(f"{name}: {what}: {reason}")
    print(f"now give {shrunk.data} in place of the clips")
