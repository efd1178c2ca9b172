"""The bytes of a source, by offset, and work on pieces of them in several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from ml.connectors.source import FileSource, Source
from ml.errors import BadInput
from ml.file_bytes import FileBytes

T = TypeVar("T")


class SourceBytes:
    """The bytes of a file, or of the lines that came with a request, joined by line ends.

    wanted : what the source must be, for messages, e.g. "a CSV file".
    size : how many there are. Raises BadInput for what is no regular file or cannot be read.
    """

    def __init__(self, source: Source, wanted: str) -> None:
        self._file: FileBytes | None = None
        self._data = b""
        if isinstance(source, FileSource):
            self._file = FileBytes(source.path, source.name, wanted, is_resolved=source.is_resolved)
            self.size = self._file.size
            return
        try:
            self._data = "\n".join(source.lines).encode()
        except UnicodeEncodeError:
            raise BadInput("in-memory data holds characters that are no Unicode text") from None
        self.size = len(self._data)

    def read(self, position: int, count: int) -> bytes:
        """Up to so many bytes from an offset on; fewer only at the end. Safe in several threads."""
        return self._data[position : position + count] if self._file is None else self._file.read(position, count)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


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
