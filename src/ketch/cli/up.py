"""`ketch up`: MODEL → a live address, by the shortest path: packed, made an image, brought up where there is a place.

model file | bundle --*packed*--> bundle --*places*--> this machine, or the cloud that somebody is signed in to
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from ketch import bundle, deploy, image
from ketch.cli import note, options, settle, settle_trust, trust_option
from ketch.cli.completion import models
from ketch.cli.deploy import deployed, shipment
from ketch.cli.terminal import busy, json_option, say
from ketch.errors import KetchError, UsageError
from ketch.predict import fetch
from ketch.settings import Settings
from ketch.steps import Hands

CLOUDS: Final = ("beanstalk", "cloudrun", "containerapps")


@dataclass(frozen=True)
class Place:
    """Where a model can be brought up: its target, what shows that, and the options that were found with it."""

    target: str
    told: str
    options: Mapping[str, Any] = field(default_factory=dict)


@click.command("up")
@click.argument("model", shell_complete=models)
@click.option("--target", default="", help="What the model predicts, where it has to be packed; names the answer.")
@click.option("--data", help="CSV or Parquet with rows it was trained on, where it has to be packed.")
@click.option("--name", default="", help="What to call the deployment.  [the model's name]")
@click.option("--on", type=click.Choice(["compose", *CLOUDS]), help="Where.  [this machine, else the cloud found]")
@click.option("--local", is_flag=True, help="On this machine, as --on compose.")
@click.option("--port", "port", type=int, help="On this machine: port of the service.  [9696]")
@click.option("--page-port", "page_port", type=int, help="On this machine: port of the page.  [8501]")
@click.option("--plan", is_flag=True, help="Show what would be done, and stop there.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@trust_option
@json_option
@options("require_signature", "home")
def up_command(model: str, trust: str | None, **given: Any) -> None:
    """Bring MODEL (a model file or a bundle) up: an image of it on this machine, or in the cloud you are signed in to.

    What was found and what will be done is shown, and you are asked once. `ketch deploy` has all the options.
    """
    ports = {each: port for each in ("port", "page_port") if (port := given.pop(each)) is not None}
    settings = settle(given)
    settle_trust([model], trust, settings.home)
    place = chosen(places(os.environ, Path.home()), "compose" if given["local"] else given["on"] or "")
    if ports and place.target != "compose":
        raise UsageError(f"--port is for this machine, not for {place.target}", hint="Leave it out, or say --local.")
    with packed(model, settings, given) as (path, data):
        target = deploy.target(place.target)
        shipped = shipment(path, given["name"], settings)
        say(f"{model}: {'packed as ' + shipped.opened.manifest.name if data else 'a bundle'}, goes to {place.target}")
        say(f"  for there is {place.told}")
        told = {"plan": given["plan"], "yes": given["yes"]}
        deployed(target, shipped, deploy.settled(target, {**place.options, **ports}), told, Hands(os.environ, say))
        if data and not given["plan"]:
            kept = Path(shipped.opened.manifest.name + bundle.SUFFIX)
            bundle.save(data, kept)
            note(f"{kept} is the bundle, for ketch deploy and all else")


@contextmanager
def packed(model: str, settings: Settings, given: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Give the path of a bundle, and its bytes where it was packed just now, which is kept meanwhile."""
    from ketch.pack import Options, compose, read_table

    if model.endswith(".ipynb"):
        raise UsageError("A notebook is packed first", hint=f"ketch pack {model}, then ketch up with the bundle.")
    if bundle.looks_like_bundle(fetch(model, settings.home)[0]):
        yield model, b""
        return
    with busy("packing"):
        made = compose([Path(model)], read_table(given["data"]), Options(target=given["target"]), home=settings.home)
    for each in made.notes:
        note(each)
    with tempfile.TemporaryDirectory(prefix="ketch-") as folder:
        path = Path(folder) / (made.name + bundle.SUFFIX)
        bundle.save(made.data, path)
        yield str(path), made.data


# ---- where -------------------------------------------------------------------------------------------


def chosen(found: Mapping[str, Place], wanted: str) -> Place:
    """Choose a place: the one that is wanted, else this machine, else the only cloud.

    Raises:
        UsageError: there is none, or more than one.
    """
    if wanted:
        if wanted in found:
            return found[wanted]
        needs = "a container engine and compose" if wanted == "compose" else "that you are signed in to its cloud"
        raise UsageError(f"{wanted} needs {needs}", hint=f"See: ketch deploy {wanted} --doctor")
    if "compose" in found:
        return found["compose"]
    if len(found) > 1:
        told = ", ".join(f"{each.told} (--on {name})" for name, each in found.items())
        raise UsageError(f"There is more than one place: {told}", hint="Choose with --on.")
    if not found:
        raise UsageError(
            "There is neither a container engine with compose here, nor a cloud that you are signed in to",
            hint="Install docker or podman; or sign in: aws configure, gcloud auth application-default login, az login",
        )
    return next(iter(found.values()))


def places(environ: Mapping[str, str], home: Path) -> dict[str, Place]:
    """Find where a model can be brought up; no cloud is asked."""
    ways: tuple[Callable[[Mapping[str, str], Path], Place | None], ...] = (_local, _amazon, _google, _azure)
    return {each.target: each for way in ways if (each := way(environ, home))}


def _local(environ: Mapping[str, str], home: Path) -> Place | None:
    compose: Any = deploy.target("compose")
    engines: Any = image.sibling("engine")
    for name in ("docker", "podman"):
        try:
            engines.find(name)
            answers = compose.doctor("", {"engine": name})[-1].call.done(Hands(environ))
        except KetchError:
            continue
        return Place("compose", f"{name} on this machine, with {answers.strip().splitlines()[0]}", {"engine": name})
    return None


def _amazon(environ: Mapping[str, str], home: Path) -> Place | None:
    if environ.get("AWS_ACCESS_KEY_ID"):
        return Place("beanstalk", "a key of AWS in AWS_ACCESS_KEY_ID")
    files = (environ.get(f"AWS_{each}_FILE") or home / ".aws" / path for each, path in AWS_FILES.items())
    if any(Path(each).is_file() for each in files):
        return Place("beanstalk", f"the AWS profile {environ.get('AWS_PROFILE') or 'default'}")
    return None


AWS_FILES: Final = {"SHARED_CREDENTIALS": "credentials", "CONFIG": "config"}


def _google(environ: Mapping[str, str], home: Path) -> Place | None:
    below = Path(environ["APPDATA"]) / "gcloud" if environ.get("APPDATA") else home / ".config" / "gcloud"
    folder = Path(environ.get("CLOUDSDK_CONFIG") or below)
    path = Path(environ.get("GOOGLE_APPLICATION_CREDENTIALS") or folder / "application_default_credentials.json")
    if not path.is_file():
        return None
    told = _read(path)
    project = environ.get("GOOGLE_CLOUD_PROJECT") or told.get("quota_project_id") or told.get("project_id")
    return Place("cloudrun", "who is signed in to Google Cloud", {"project": str(project)} if project else {})


def _azure(environ: Mapping[str, str], home: Path) -> Place | None:
    listed = _read(Path(environ.get("AZURE_CONFIG_DIR") or home / ".azure") / "azureProfile.json")
    usual = [each.get("id") for each in listed.get("subscriptions") or () if each.get("isDefault")]
    subscription = environ.get("AZURE_SUBSCRIPTION_ID") or next(iter(usual), "")
    if not subscription and not (environ.get("AZURE_CLIENT_ID") and environ.get("AZURE_TENANT_ID")):
        return None
    return Place("containerapps", "who is signed in to Azure", {"subscription": subscription} if subscription else {})


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8-sig"))  # az writes a mark before it
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
