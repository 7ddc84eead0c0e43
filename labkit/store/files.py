"""Files on disk: read within bounds, whoever wrote them, and replaced in one step."""

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

#: Bytes of JSON that are read: ten times what `config.MOST_EPOCHS` epochs take.
MOST_JSON = 2**24
MOST_NESTED = 10  # levels of JSON within an object; what labkit writes has five


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A regular file to read. Pipes and devices, which may never end, are refused.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is not a regular file.
    """

    def at_once(name: str, flags: int) -> int:  # opening a pipe would wait for who writes to it
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    with open(path, "rb", opener=at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        yield file


def read(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file, or a larger one.
    """
    with opened(path) as file:
        content = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content


def parse(text: bytes) -> dict[str, Any]:
    """The JSON object that `text` is; NaN and infinity, which JSON does not have, become text.

    Raises:
        ValueError: it is none, or nested more than `MOST_NESTED` levels deep.
    """
    try:
        value = json.loads(text, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    if _deeper(value, MOST_NESTED):
        raise ValueError(f"it is nested more than {MOST_NESTED} levels deep")
    return value


def _deeper(value: Any, levels: int) -> bool:
    """Whether an object or a list has others nested in it in more than so many levels."""
    if not isinstance(value, dict | list):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return levels < 0 or any(_deeper(part, levels - 1) for part in parts)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def version(path: Path) -> tuple[int, ...]:
    """What tells a file from another that takes its place; () where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` in one step when the block ends.

    A crash or an error in between leaves the old file whole.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are private; records are meant to be shared
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content` in one step."""
    with replacing(path) as file:
        file.write(content)
