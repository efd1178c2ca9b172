"""Sends files into a data set: small ones by form, several at once, others in parts that can be taken up again."""

from __future__ import annotations

import contextlib
import hashlib
import io
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from urllib3.filepost import encode_multipart_formdata

from cli.remote.client import Answer, Client, NoAnswer, Refused, dataset_path
from cli.remote.following import end_well, follow
from cli.remote.meter import Meter, metered
from cli.remote.sources import Source
from cli.remote.tables import clean, counted
from cli.remote.target import INTERRUPTED, Target
from storage.landing import sha256_of

Json = dict[str, Any]

# What one form brings at most: little enough to be sent again as a whole.
_FORM_BYTES = 4 * 2**20
_FORM_FILES = 500
# How long a server may be away: as long as one takes to be restarted.
_PATIENCE_S = 60.0
_FIRST_WAIT_S, _LAST_WAIT_S = 0.1, 2.0
# How often a part is sent that comes in other than it went out.
_WRONG_MOST = 3


class Uploading:
    """Uploads into one data set, and tells of each file when it is there."""

    def __init__(self, target: Target, name: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._target = target
        self._client = target.client
        self._name = name
        self._path = dataset_path(name)
        self._sleep = sleep

    def send(self, sources: Sequence[Source]) -> None:
        """Send files. Raises click's ClickException."""
        self._client.call("PUT", self._path)
        for group in _groups(sources):
            if not _fits_form(group[0]):
                self._in_parts(group[0])
                continue
            try:
                answer = self._form(group)
            except (NoAnswer, Refused) as error:
                if isinstance(error, Refused) and error.code != 413:
                    raise
                # A server that refuses a form for its size may hang up while it is being sent.
                for source in group:
                    self._in_parts(source)
                continue
            self._tell(answer, [f"{source.path} is uploaded, {source.size} bytes" for source in group])

    def unpack(self, sources: Sequence[Source], folder: str) -> None:
        """Send archives, whose files go into a folder of the data set. Raises click's ClickException."""
        self._client.call("PUT", self._path)
        for source in sources:
            wanted: Json = {"bytes": source.size, "sha256": _digest(source), "unpack": True}
            if folder.rstrip("/"):
                wanted["path"] = folder.rstrip("/")
            self._finish(source, self._client.call("POST", f"{self._path}/uploads", wanted).json)

    def go_on(self, source: Source, number: int) -> None:
        """Go on with an upload that was left. Raises click's ClickException."""
        upload = self._client.call("GET", f"{self._path}/uploads/{number}").json
        is_same = upload.get("bytes") == source.size and upload.get("sha256") in {None, _digest(source)}
        if not is_same:
            raise click.ClickException(f"{source.file} is not the file that upload {number} began with")
        if upload.get("links"):
            raise click.ClickException(f"the parts of upload {number} are sent to its links, which others began")
        self._finish(source, upload)

    def _form(self, group: Sequence[Source]) -> Answer:
        content, kind = encode_multipart_formdata(
            [("file", (source.path, _read(source), "application/octet-stream")) for source in group]
        )
        return self._client.send("POST", f"{self._path}/files", content, {"Content-Type": kind})

    def _in_parts(self, source: Source) -> None:
        wanted = {"path": source.path, "bytes": source.size, "sha256": _digest(source)}
        self._finish(source, self._client.call("POST", f"{self._path}/uploads", wanted).json)

    def _finish(self, source: Source, upload: Json) -> None:
        """Send the parts that are missing, and have them put together."""
        where = f"{self._path}/uploads/{upload['upload_id']}"
        try:
            with metered(source.file.name, source.size) as meter:
                _Parts(self._client, where, source, upload, meter, self._sleep).send()
            answer = self._complete(where)
        except KeyboardInterrupt:
            self._advise(source, upload)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except click.ClickException as error:
            if isinstance(error, Refused) and error.kind == "upload_refused":
                # Such content is refused again and again.
                with contextlib.suppress(NoAnswer, Refused):
                    self._client.call("DELETE", where)
            elif not (isinstance(error, Refused) and error.code == 404):
                self._advise(source, upload)
            raise
        report = answer.json
        if upload.get("unpack"):
            into = f" into {upload['path']}" if upload.get("path") else ""
            files = counted(report.get("file_count"), "file")
            told = f"{source.file.name} is unpacked{into}: {files}, {report.get('bytes')} bytes"
        else:
            told = f"{upload.get('path')} is uploaded, {report.get('bytes')} bytes"
        self._tell(answer, [told])

    def _complete(self, where: str) -> Answer:
        """Wait until the parts are put together, which may be asked for again."""
        patience = _Patience(lambda line: click.echo(line, err=True), self._sleep)
        while True:
            try:
                answer = self._client.call("POST", f"{where}/complete")
            except (NoAnswer, Refused) as error:
                patience.wait(error)
                continue
            if answer.code != 202:
                return answer
            end_well(follow(self._client, int(answer.json["task_id"])).json)

    def _tell(self, answer: Answer, lines: Sequence[str]) -> None:
        if self._target.as_json:
            self._target.print_json(answer)
            return
        for line in lines:
            click.echo(clean(line))

    def _advise(self, source: Source, upload: Json) -> None:
        number, name = upload["upload_id"], shlex.quote(self._name)
        click.echo(
            clean(
                f"upload {number} is kept for days; go on with: "
                f"modelyard datasets upload {name} {shlex.quote(str(source.file))} --resume {number}, "
                f"or give it up with: modelyard datasets delete {name} --upload {number}"
            ),
            err=True,
        )


class _Parts:
    """Sends the parts of an upload, one after the other."""

    def __init__(
        self, client: Client, where: str, source: Source, upload: Json, meter: Meter, sleep: Callable[[float], None]
    ) -> None:
        self._client = client
        self._where = where
        self._source = source
        self._part_bytes = int(upload["part_bytes"])
        self._missing: list[int] = list(upload["missing"])
        self._meter = meter
        self._patience = _Patience(meter.say, sleep)

    def send(self) -> None:
        """Send what is missing; after a broken connection, what the server says is missing."""
        while self._missing:
            try:
                if self._patience.is_tried:
                    self._missing = list(self._client.call("GET", self._where).json["missing"])
                if self._missing:
                    self._send_part(self._missing[0])
            except (NoAnswer, Refused) as error:
                self._patience.wait(error)
            else:
                self._patience.rest()
                self._missing = self._missing[1:]
        self._meter.tell(self._source.size)

    def _send_part(self, number: int) -> None:
        there = self._source.size - sum(self._size(each) for each in self._missing)
        content = _read(self._source, (number - 1) * self._part_bytes, self._size(number))
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(content)),
            "X-Content-SHA256": hashlib.sha256(content).hexdigest(),
        }
        body = _Watched(content, lambda sent: self._meter.tell(there + sent))
        self._client.send("PUT", f"{self._where}/parts/{number}", body, headers)

    def _size(self, number: int) -> int:
        return min(self._part_bytes, self._source.size - (number - 1) * self._part_bytes)


class _Patience:
    """How long it is worth trying again."""

    def __init__(self, say: Callable[[str], None], sleep: Callable[[float], None]) -> None:
        self._say = say
        self._sleep = sleep
        self.rest()

    def rest(self) -> None:
        """It went well."""
        self._since: float | None = None
        self._step_s = _FIRST_WAIT_S
        self._wrong = 0

    @property
    def is_tried(self) -> bool:
        """Whether the last call went wrong."""
        return self._since is not None

    def wait(self, error: NoAnswer | Refused) -> None:
        """Wait a moment after a call that went wrong. Raises `error` when there is no use in trying again."""
        if isinstance(error, Refused) and not error.is_passing:
            self._wrong += error.kind == "checksum_wrong"
            if error.kind != "checksum_wrong" or self._wrong >= _WRONG_MOST:
                raise error
        if self._since is None:
            self._since = time.monotonic()
            self._say(f"trying again: {error.message}")
        elif time.monotonic() - self._since > _PATIENCE_S:
            raise error
        self._sleep(self._step_s)
        self._step_s = min(self._step_s * 2, _LAST_WAIT_S)


class _Watched(io.BytesIO):
    """Content that tells how much of it was taken."""

    def __init__(self, content: bytes, tell: Callable[[int], None]) -> None:
        super().__init__(content)
        self._tell = tell

    def read(self, amount: int | None = -1, /) -> bytes:
        piece = super().read(amount)
        self._tell(self.tell())
        return piece


def _groups(sources: Sequence[Source]) -> Iterator[list[Source]]:
    """Sources in their order: those of one form together, others alone."""
    group: list[Source] = []
    for source in sources:
        is_full = len(group) >= _FORM_FILES or sum(each.size for each in group) + source.size > _FORM_BYTES
        if group and (is_full or not _fits_form(source)):
            yield group
            group = []
        group.append(source)
        if not _fits_form(source):
            yield group
            group = []
    if group:
        yield group


def _fits_form(source: Source) -> bool:
    """Whether a form can bring it. Quotes and backslashes in the name of a form's file are read in several ways."""
    return source.size <= _FORM_BYTES and not set('"\\') & set(source.path)


def _digest(source: Source) -> str:
    try:
        return sha256_of(source.file)
    except OSError as error:
        raise _unreadable(source.file, error) from None


def _read(source: Source, start: int = 0, size: int | None = None) -> bytes:
    """A piece of a file, or all. Raises click's ClickException, also when it is not as long as it was."""
    size = source.size if size is None else size
    try:
        with source.file.open("rb") as file:
            file.seek(start)
            content = file.read(size)
    except OSError as error:
        raise _unreadable(source.file, error) from None
    if len(content) < size:
        raise click.ClickException(f"{source.file} became shorter while it was sent")
    return content


def _unreadable(file: Path, error: OSError) -> click.ClickException:
    return click.ClickException(f"{file} cannot be read: {error.strerror or error}")
