"""modelyard datasets: files that a server keeps, to train on and predict with by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from cli.remote.downloading import archive_format, save_archive, save_files, to_option
from cli.remote.pages import all_option, cursor_option, limit_option, listed, tell_more
from cli.remote.tables import clean, print_facts, print_table, print_warnings
from cli.remote.target import Target, asks

Json = dict[str, Any]

_CLASSES_SHOWN = 3

_limit = click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many at most.")
_cursor = click.option("--cursor", help="Where to go on, as an earlier list told.")


@click.group()
def datasets() -> None:
    """Data sets: create, fill, show and delete them."""


@datasets.command("list")
@limit_option
@cursor_option
@all_option
@asks
def list_datasets(target: Target, **which: Any) -> None:
    """List the data sets of the account, the newest first."""
    found = listed(target, "/datasets", "datasets", {}, **which)
    if found is None:
        return None
    if not found:
        return click.echo("no data sets; make one with: modelyard datasets upload NAME FILE")
    names = ("name", "state", "file_count", "bytes", "revision", "changed_at")
    head = ("data set", "state", "files", "bytes", "revision", "changed")
    return print_table(head, [[one.get(name) for name in names] for one in found])


@datasets.command()
@click.argument("name")
@asks
def create(target: Target, name: str) -> None:
    """Create data set NAME; one that is there already stays as it is."""
    from cli.remote.client import dataset_path

    answer = target.client.call("PUT", dataset_path(name))
    if target.as_json:
        return target.print_json(answer)
    return click.echo(f"data set {clean(name.lower())} {'is created' if answer.code == 201 else 'was there already'}")


@datasets.command()
@click.argument("name")
@_limit
@_cursor
@asks
def show(target: Target, name: str, limit: int, cursor: str | None) -> None:
    """Show data set NAME and its files, with what `describe` found in them."""
    from cli.remote.client import dataset_path

    answer = target.client.call("GET", dataset_path(name), query={"limit": limit, "cursor": cursor})
    if target.as_json:
        return target.print_json(answer)
    found = answer.json
    names = ("state", "revision", "file_count", "bytes", "created_at", "changed_at")
    heads = ("state", "revision", "files", "bytes", "created", "changed")
    print_facts(
        [("data set", found.get("name")), *((head, found.get(each)) for head, each in zip(heads, names, strict=True))]
    )
    if files := found.get("files"):
        click.echo()
        print_table(("path", "bytes", "rows", "columns", "classes"), [_row(file) for file in files])
        print_warnings(
            f"{file.get('path')} cannot be looked into: {file['facts']['error']}"
            for file in files
            if (file.get("facts") or {}).get("error")
        )
    return tell_more(found)


@datasets.command()
@click.argument("name")
@to_option
@asks
def download(target: Target, name: str, to: Path | None) -> None:
    """Download data set NAME: its files, or an archive of them."""
    from cli.remote.client import dataset_path

    base, place = dataset_path(name), to or Path(name.lower())
    form = archive_format(place)
    if form is not None:
        return save_archive(target, base, place, form, {})
    return save_files(target, base, place, _files_of(target, base), {})


def _files_of(target: Target, base: str) -> Iterator[Json]:
    """All files of a data set, page by page."""
    cursor = None
    while True:
        page = target.client.call("GET", base, query={"limit": 1000, "cursor": cursor}).json
        yield from page.get("files") or ()
        cursor = page.get("next_cursor")
        if cursor is None:
            return


@datasets.command()
@click.argument("name")
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path(path_type=Path))
@click.option("--folder", help="Folder of the data set to put them into.")
@click.option("--as", "as_path", metavar="PATH", help="What the file is called in the data set, instead of its name.")
@click.option("--unpack", is_flag=True, help="Take the files out of each FILE, a zip or tar archive.")
@click.option("--resume", type=click.IntRange(1), metavar="NUMBER", help="Go on with an upload that was left.")
@asks
def upload(
    target: Target,
    name: str,
    files: tuple[Path, ...],
    folder: str | None,
    as_path: str | None,
    unpack: bool,
    resume: int | None,
) -> None:
    """Upload FILEs of this machine into data set NAME, which is created where it is missing.

    Of a folder all files are taken, with their paths below it, but for hidden ones. A file of a path that is there
    already takes its place. Large files go in parts: after Ctrl-C, or when the server stays away, --resume goes on.
    """
    from cli.remote.sources import sources_of
    from cli.remote.uploading import Uploading

    if as_path is not None and (unpack or folder is not None):
        raise click.UsageError("--as goes with neither --unpack nor --folder")
    if as_path is not None and len(files) > 1:
        raise click.UsageError("--as names one file; --folder puts several into a folder")
    if resume is not None and (len(files) > 1 or unpack or folder is not None or as_path is not None):
        raise click.UsageError("--resume takes one FILE, and no --folder, --as or --unpack: the upload knows them")
    sources = sources_of(files, folder, as_path, is_packed=unpack or resume is not None)
    uploading = Uploading(target, name)
    if resume is not None:
        uploading.go_on(sources[0], resume)
    elif unpack:
        uploading.unpack(sources, folder or "")
    else:
        uploading.send(sources)


@datasets.command()
@click.argument("name")
@asks
def describe(target: Target, name: str) -> None:
    """Have a worker count rows, columns and classes in the tables of data set NAME; `show` tells them."""
    from cli.remote.client import dataset_path
    from cli.remote.following import finish

    answer = target.client.call("POST", f"{dataset_path(name)}/describe")
    if answer.code == 202:
        return finish(target, int(answer.json["task_id"]))
    if target.as_json:
        return target.print_json(answer)
    count = answer.json.get("file_count")
    return click.echo(
        f"{count} {'file' if count == 1 else 'files'} of data set {clean(name.lower())} "
        f"{'is' if count == 1 else 'are'} described"
    )


@datasets.command()
@click.argument("name")
@click.option("--file", "path", metavar="PATH", help="Only this file of it.")
@click.option("--upload", "number", type=click.IntRange(1), metavar="NUMBER", help="Only this unfinished upload.")
@asks
def delete(target: Target, name: str, path: str | None, number: int | None) -> None:
    """Delete data set NAME, or one file of it. Tasks that were accepted before go on with what it held."""
    from cli.remote.client import dataset_path

    if path is not None and number is not None:
        raise click.UsageError("give one of --file and --upload")
    what, where = f"data set {name.lower()}", dataset_path(name)
    if path is not None:
        if not path.strip("/"):
            raise click.BadParameter("it names no file", param_hint="--file")
        what, where = f"{path} of {what}", f"{where}/files/{quote(path)}"
    elif number is not None:
        what, where = f"upload {number} of {what}", f"{where}/uploads/{number}"
    answer = target.client.call("DELETE", where)
    if target.as_json:
        return target.print_json(answer)
    return click.echo(f"{clean(what)} is deleted")


def _row(file: Json) -> list[Any]:
    facts = file.get("facts") or {}
    return [file.get("path"), file.get("bytes"), facts.get("rows"), facts.get("columns"), _classes(facts)]


def _classes(facts: Json) -> str | None:
    """How many classes there are: of svm files those of the labels, of others those of each column that has few."""
    if facts.get("classes"):
        return str(len(facts["classes"]))
    columns = [one for one in facts.get("about") or () if one.get("values")]
    told = [f"{one.get('name')}: {len(one['values'])}" for one in columns]
    # Which column is the label is said by services; most often it is the last.
    return ", ".join((["…"] if len(told) > _CLASSES_SHOWN else []) + told[-_CLASSES_SHOWN:]) or None
