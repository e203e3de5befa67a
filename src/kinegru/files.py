"""Nothing is lost: a file or a folder is written under a temporary name beside its place and renamed when whole.

A reader therefore sees the old content or the new, never a part, also after a kill or with two writers at work.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

UMASK = os.umask(0o77)  # asked for once: asking changes it for a moment, for all threads
os.umask(UMASK)


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing that appears at `path` only if the block ends without an error.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = Path(folder) / "history.csv"
    ...     with atomic_write(target) as file:
    ...         _ = file.write("epoch,loss")
    ...     target.read_text()
    'epoch,loss'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text: dict[str, Any] = {}
    if "b" not in mode:  # a file name that is no UTF-8 gets escapes, which JSON, CSV and HTML all hold
        text = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with _naming(path):
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, mode, **text) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o666 & ~UMASK)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def is_occupied(path: Path) -> bool:
    """Whether something is at `path` that new files would mix with: a file, or a folder that is not empty.

    >>> is_occupied(Path(__file__).parent), is_occupied(Path("nowhere"))
    (True, False)
    """
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


@contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder that takes the place of `path` only if the block ends without an error.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = Path(folder) / "checkpoint"
    ...     with atomic_directory(target) as temporary:
    ...         _ = (temporary / "state").write_text("1")
    ...     sorted(p.name for p in target.iterdir())
    ['state']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    with _naming(path):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    old = temporary.with_suffix(".old")
    try:
        yield temporary
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors about the temporary file name the one that it is to become."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and Path(error.filename).name.startswith(f".{path.name}."):
            error.filename, error.filename2 = str(path), None
        raise


def digest_of_file(path: str | os.PathLike[str]) -> str:
    """BLAKE2b of a file's bytes, 128 hex digits. Raises OSError.

    >>> len(digest_of_file(__file__))
    128
    """
    digest = hashlib.blake2b()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@functools.lru_cache(maxsize=100_000)
def _remembered(path: Path, size: int, modified: int) -> str:
    return digest_of_file(path)


def content_digest(path: Path) -> str:
    """As `digest_of_file`, remembered while the file's size and time of change stay the same; of what cannot be read
    the reason.

    >>> content_digest(Path(__file__)) == digest_of_file(__file__)
    True
    """
    try:
        status = path.stat()
        return _remembered(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        return f"unreadable: {error.strerror}"
