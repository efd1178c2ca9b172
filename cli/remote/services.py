"""modelyard services: what clients talk to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.remote.downloading import archive_format, save_archive, save_files, to_option
from cli.remote.given import parameters_option, put
from cli.remote.pages import (
    all_option,
    cursor_option,
    enveloped,
    limit_option,
    listed,
    since_option,
    until_option,
)
from cli.remote.tables import clean, print_facts, print_table, print_warnings
from cli.remote.target import Target, asks

Json = dict[str, Any]
_CLEARS = ("mem", "index", "lib", "full", "dir")


@click.group()
def services() -> None:
    """Services: list, show, create and delete them."""


@services.command("list")
@click.option("--mllib", help="Only services of this library.")
@since_option
@until_option
@limit_option
@cursor_option
@all_option
@asks
def list_services(target: Target, mllib: str | None, since: str | None, until: str | None, **which: Any) -> None:
    """List the services of the account, the newest first."""
    query = {"mllib": mllib, "since": since, "until": until}
    found = listed(target, "/services", "services", query, page_of=enveloped, **which)
    if found is None:
        return None
    if not found:
        if any(query.values()) or which["cursor"]:
            return click.echo("no such service")
        return click.echo(
            "no services; create one with: modelyard services create NAME --mllib xgboost --connector csv"
        )
    return print_table(
        ("service", "mllib", "type", "model", "training", "repository", "description"),
        [
            [one.get(name) for name in ("name", "mllib", "mltype", "predict", "training", "repository", "description")]
            for one in found
        ],
    )


@services.command()
@click.argument("name")
@asks
def show(target: Target, name: str) -> None:
    """Show service NAME, its parameters and its open jobs."""
    import json

    from cli.remote.client import service_path

    answer = target.client.call("GET", service_path(name), query={"labels": "true"})
    if target.as_json:
        return target.print_json(answer)
    body = answer.json.get("body") or {}
    facts = [
        ("service", body.get("name")),
        ("description", body.get("description") or None),
        ("library", body.get("mllib")),
        ("type", body.get("mltype")),
        ("repository", body.get("repository")),
        ("has a model", body.get("predict")),
        ("model bytes", (body.get("model_stats") or {}).get("size_bytes")),
        ("predictions", (body.get("service_stats") or {}).get("predict_count")),
        ("labels", ", ".join(map(str, body.get("labels") or ())) or None),
    ]
    facts += [
        (f"parameters.{section}", json.dumps(given, ensure_ascii=False))
        for section, given in (body.get("parameters") or {}).items()
        if given
    ]
    print_facts(facts)
    if jobs := body.get("jobs"):
        click.echo()
        print_table(("job", "task", "state"), [[job.get(name) for name in ("job", "task_id", "state")] for job in jobs])
    return None


@services.command()
@click.argument("name")
@click.option("--mllib", required=True, help="The library: xgboost, torch or caffe.")
@click.option("--connector", help="What reads the data: csv or svm.")
@click.option("--template", help="The network, with torch and caffe: mlp or lregression.")
@click.option("--nclasses", type=click.IntRange(1), help="How many classes there are.")
@click.option("--label", "labels", multiple=True, help="The column to predict; repeat it for several.")
@click.option(
    "--repository",
    metavar="PLACE",
    help="Where the model is kept: a folder in a data root of the server, or a name. It is made where it is missing. "
    "Default: the name of the service.",
)
@click.option("--init", metavar="ARCHIVE", help="A model to begin with: an archive in a data root, or its URL.")
@click.option("--description", default="", help="A few words for lists.")
@parameters_option
@asks
def create(
    target: Target,
    name: str,
    mllib: str,
    connector: str | None,
    template: str | None,
    nclasses: int | None,
    labels: tuple[str, ...],
    repository: str | None,
    init: str | None,
    description: str,
    parameters: Json | None,
) -> None:
    """Create service NAME."""
    from cli.remote.client import service_path

    wanted = parameters or {}
    put(wanted, "input", "connector", connector)
    put(wanted, "input", "label", labels[0] if len(labels) == 1 else list(labels) or None)
    put(wanted, "mllib", "template", template)
    put(wanted, "mllib", "nclasses", nclasses)
    model = {"repository": repository or name.lower(), "create_repository": True}
    if init is not None:
        model["init"] = init
    body = {"mllib": mllib, "description": description, "model": model, "parameters": wanted}
    answer = target.client.call("PUT", service_path(name), body)
    if target.as_json:
        return target.print_json(answer)
    head = answer.json.get("head") or {}
    print_warnings(head.get("warnings") or ())
    task = f"; its model is taken over by task {head['task_id']}" if "task_id" in head else ""
    return click.echo(f"service {clean(name.lower())} is created{task}")


@services.command()
@click.argument("name")
@to_option
@click.option("--version", type=click.IntRange(1), help="Number of a version. Default: the one that predictions use.")
@asks
def download(target: Target, name: str, to: Path | None, version: int | None) -> None:
    """Download the model of service NAME: its files, or an archive of them."""
    from cli.remote.client import service_path

    base, query = service_path(name), {"version": version}
    place = to or Path(name.lower())
    form = archive_format(place)
    if form is not None:
        return save_archive(target, base, place, form, query)
    told = target.client.call("GET", f"{base}/files", query=query).json.get("body") or {}
    # A training may end meanwhile, and its files would not go with these.
    return save_files(target, base, place, told.get("files") or (), {"version": told.get("version")})


@services.command()
@click.argument("name")
@click.option(
    "--clear",
    type=click.Choice(_CLEARS),
    help="What to remove of its repository: nothing (mem), an index, the models (lib), all files (full), or the folder "
    "too (dir). Default: nothing.",
)
@asks
def delete(target: Target, name: str, clear: str | None) -> None:
    """Cancel the jobs of service NAME and forget it; its repository stays, unless --clear says otherwise."""
    from cli.remote.client import service_path

    answer = target.client.call("DELETE", service_path(name), query={"clear": clear})
    if target.as_json:
        return target.print_json(answer)
    return click.echo(f"service {clean(name.lower())} is deleted")
