"""Between the artifact rows of a version and the folder that a manifest describes."""

from __future__ import annotations

from storage.objects.manifest import Manifest, ManifestFile
from storage.records import Artifact, Version


def manifest_of(version: Version) -> Manifest:
    """The files of a version, as the cache fetches them."""
    return Manifest(
        tuple(ManifestFile(each.name, each.key, each.size_bytes, each.sha256) for each in version.artifacts)
    )


def artifacts_of(manifest: Manifest) -> list[Artifact]:
    """What the records keep of an uploaded folder."""
    return [Artifact(each.name, each.key, each.size, each.sha256) for each in manifest.files]
