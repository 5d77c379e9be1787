"""Hugging Face Spaces, as files: a Docker Space, which is a repository with a README and a build context."""

from typing import Final

import msgspec

from ketch import deploy
from ketch.deploy import Option, Options, Shipment, Target
from ketch.steps import Plan

PORT: Final = 9696  # of the image
MODES: Final = ("service", "page")
LARGE: Final = b"*.whl filter=lfs diff=lfs merge=lfs -text\n*.ketch filter=lfs diff=lfs merge=lfs -text\n"
MADE: Final = "hf repos create {name} --repo-type space --space-sdk docker --secrets KETCH_API_KEYS"
OPTIONS: Final = (
    Option("mode", "The REST service, or the page for people.", "service", MODES),
    Option("licence", "The licence of the Space, as Hugging Face spells it, such as apache-2.0."),
)


def plan(shipment: Shipment, options: Options) -> Plan:
    """Give the files of a Space."""
    name = deploy.require_name(shipment.name)
    files = {"README.md": readme(shipment, options), ".gitattributes": LARGE}
    if shipment.context is not None:
        files |= shipment.context(mode=options["mode"], platform="linux/amd64").files
    notes = (
        f"then make a Space, whose secret is taken from your environment: {MADE.format(name=name)}",
        "without KETCH_API_KEYS, the container says so and ends",
        f"and push, in that folder: hf upload {name} . --repo-type space",
    )
    return Plan("huggingface", name, files=files, uses={"huggingface.cpu-basic": 730.0}, notes=notes)


def readme(shipment: Shipment, options: Options) -> bytes:
    """Write the page of a Space, which its configuration stands in front of."""
    model = shipment.opened.manifest.name
    told = {
        "title": shipment.name,
        "emoji": "\N{BAR CHART}",
        "colorFrom": "blue",
        "colorTo": "indigo",
        "sdk": "docker",
        "app_port": PORT,
        "pinned": False,
        **({"license": options["licence"]} if options["licence"] else {}),
    }
    front = "".join(f"{key}: {msgspec.json.encode(each).decode()}\n" for key, each in told.items())
    ways = {
        "service": "`POST /predict` answers rows; `/docs` tells how, and `/` is a form. Callers need a key.",
        "page": "A page for people: a form, tables in and out, and reasons.",
    }
    written = f"Written by `ketch deploy huggingface`; the model is `{shipment.label}`."
    body = "\n\n".join((f"# {model}", ways[options["mode"]], written))
    return f"---\n{front}---\n\n{body}\n".encode()


TARGET: Final = Target("huggingface", "A Docker Space of Hugging Face, as files.", "files", plan, OPTIONS)
