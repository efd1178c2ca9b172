"""Folders in the object store: their files, then a manifest that says the folder is complete."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from storage.errors import BadArtifactKey, ChecksumMismatch
from storage.landing import is_partial_name, local_errors
from storage.objects.base import Objects, check_key

MANIFEST = "manifest.json"
_LIMIT_BYTES = 16 * 2**20


@dataclass(frozen=True)
class ManifestFile:
    """One file of a folder: its name relative to the folder, its key, size in bytes and SHA-256."""

    name: str
    key: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All files of a folder that was stored completely, ordered by name."""

    files: tuple[ManifestFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def to_json(self) -> dict[str, Any]:
        return {"files": [asdict(file) for file in self.files], "complete": True}

    @classmethod
    def from_json(cls, given: object) -> Manifest:
        """The manifest that `to_json` made. Raises ChecksumMismatch when `given` cannot be one."""
        try:
            if not isinstance(given, dict) or given["complete"] is not True:
                raise ValueError("it does not say that it is complete")
            files = tuple(_read_file(file) for file in given["files"])
            if len({file.name for file in files}) < len(files):
                raise ValueError("a name comes twice")
        except (KeyError, TypeError, ValueError, BadArtifactKey) as error:
            raise ChecksumMismatch(f"a manifest is damaged: {error}") from error
        return cls(files)


def _read_file(given: dict[str, Any]) -> ManifestFile:
    name, key, size, sha256 = given["name"], given["key"], given["size"], given["sha256"]
    if not all(isinstance(text, str) for text in (name, key, sha256)):
        raise ValueError("a name, key or digest is not a text")
    if not isinstance(size, int) or size < 0:
        raise ValueError("a size is not a number of bytes")
    return ManifestFile(check_name(name), check_key(key), size, check_sha256(sha256))


def check_name(name: str) -> str:
    """Return `name` if it is a safe relative path inside a folder. Raises BadArtifactKey."""
    check_key(f"files/{name}")
    return name


def check_sha256(text: str) -> str:
    """Return `text` if it is a SHA-256 in hexadecimal. Raises ChecksumMismatch."""
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ChecksumMismatch(f"{text[:80]!r} is no SHA-256")
    return text


def upload_folder(objects: Objects, prefix: str, folder: Path) -> Manifest:
    """Store every file below `folder`, then the manifest, under the key prefix `prefix`.

    Raises BadArtifactKey when the folder holds something that is neither file nor folder: links are not
    followed, because a training writes here and must not reach other files. OSError when it cannot be read.
    Raises what `upload_files` raises.
    """
    return upload_files(objects, prefix, {name: folder / name for name in _names(folder)})


def upload_files(objects: Objects, prefix: str, files: Mapping[str, Path]) -> Manifest:
    """Store local files under their names in the folder `prefix`, the manifest last.

    files : name in the folder, with `/` between parts, to the local file.
    Raises BadArtifactKey when a name cannot be stored; what `Objects.put_file` raises. After an error the
    manifest is missing, and so the folder incomplete.
    """
    check_key(prefix)
    kept = []
    for name, path in sorted(files.items()):
        stored = objects.put_file(f"{prefix}/files/{check_name(name)}", path)
        kept.append(ManifestFile(name, stored.key, stored.size, stored.sha256))
    manifest = Manifest(tuple(kept))
    text = json.dumps(manifest.to_json(), indent=1, sort_keys=True)
    objects.put_bytes(f"{prefix}/{MANIFEST}", text.encode())
    return manifest


def read_manifest(objects: Objects, prefix: str) -> Manifest:
    """The manifest under `prefix`.

    Raises ArtifactNotFound when the folder is not (or not completely) stored, ChecksumMismatch when the
    manifest is damaged.
    """
    data = objects.get_bytes(f"{check_key(prefix)}/{MANIFEST}", limit_bytes=_LIMIT_BYTES)
    try:
        given = json.loads(data)
    except ValueError as error:
        raise ChecksumMismatch(f"the manifest of {prefix!r} is damaged: {error}") from error
    return Manifest.from_json(given)


def download_folder(objects: Objects, manifest: Manifest, folder: Path) -> None:
    """Copy all files into `folder`, which is created; sizes and digests are verified.

    Raises what `Objects.get_file` raises; files that were copied before stay.
    """
    with local_errors(f"{str(folder)!r} cannot be created"):
        folder.mkdir(parents=True, exist_ok=True)
    for file in manifest.files:
        path = folder / check_name(file.name)
        with local_errors(f"{str(path.parent)!r} cannot be created"):
            path.parent.mkdir(parents=True, exist_ok=True)
        objects.get_file(file.key, path, file.sha256)


def _names(folder: Path) -> list[str]:
    """Relative names of the files below `folder`, sorted; temporary files of killed writers are left out."""
    names = []
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if is_partial_name(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    names.append(Path(entry.path).relative_to(folder).as_posix())
                else:
                    raise BadArtifactKey(f"{entry.path!r} is a link or a device; only files can be stored")
    return names
