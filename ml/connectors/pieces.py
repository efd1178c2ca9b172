"""The bytes of a source, by offset, and work on pieces of them in several threads."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from ml.connectors.opening import open_unlinked
from ml.connectors.source import FileSource, Source
from ml.errors import BadInput

T = TypeVar("T")


class SourceBytes:
    """The bytes of a file, or of the lines that came with a request, joined by line ends.

    wanted : what the source must be, for messages, e.g. "a CSV file".
    size : how many there are. Raises BadInput for what is no regular file or cannot be read.
    """

    def __init__(self, source: Source, wanted: str) -> None:
        self._name = source.name
        self._descriptor: int | None = None
        self._data = b""
        if isinstance(source, FileSource):
            self._descriptor, self.size = _opened(source, wanted)
            return
        try:
            self._data = "\n".join(source.lines).encode()
        except UnicodeEncodeError:
            raise BadInput("in-memory data holds characters that are no Unicode text") from None
        self.size = len(self._data)

    def read(self, position: int, count: int) -> bytes:
        """Up to so many bytes from an offset on; fewer only at the end. Safe in several threads."""
        if self._descriptor is None:
            return self._data[position : position + count]
        parts = []
        try:
            while count > 0 and (part := os.pread(self._descriptor, count, position)):
                parts.append(part)
                position += len(part)
                count -= len(part)
        except OSError as error:
            raise _unreadable(self._name, error) from None
        if count > 0 and position < self.size:
            raise BadInput(
                f"data file {self._name} became shorter while it was read; train on a file that nobody writes to"
            )
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _opened(source: FileSource, wanted: str) -> tuple[int, int]:
    """Descriptor and size of a regular file. Raises BadInput."""
    try:
        if source.is_resolved:
            descriptor = open_unlinked(source.path)
        else:
            # Without waiting: to open a pipe would last until somebody writes to it.
            descriptor = os.open(source.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"data file {source.name} does not exist") from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise BadInput(f"{source.name} is no regular file, requires {wanted}") from None
        raise _unreadable(source.name, error) from None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return descriptor, status.st_size
    os.close(descriptor)
    what = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
    raise BadInput(f"{source.name} is {what}, requires {wanted}")


def _unreadable(name: str, error: OSError) -> BadInput:
    return BadInput(f"data file {name} cannot be read: {(error.strerror or 'unknown error').lower()}")


class Ordered:
    """Runs jobs in threads, a few ahead of the one whose result is asked for; with one thread, when it is asked for."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pieces") if threads > 1 else None

    def __enter__(self) -> Ordered:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, jobs: Iterator[Callable[[], T]]) -> Generator[T, None, None]:
        """The results, in order; to close the iterator is to drop the jobs that have not begun."""
        if self._pool is None:
            yield from (job() for job in jobs)
            return
        waiting: deque[Future[T]] = deque()
        try:
            for job in jobs:
                waiting.append(self._pool.submit(job))
                if len(waiting) > self._threads + 2:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()
