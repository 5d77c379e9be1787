"""Netlify's own program, against the fake that the target is tried on: an independent client of the same API."""

import json
import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

from ketch.deploy import Shipment
from ketch.steps import run
from tests.netlify.fake import TOKEN, netlify
from tests.ship.test_netlify import CACHE, swagger
from tests.test_deploy_netlify import hands, live, model, planned, shipments  # noqa: F401 (a fixture)

pytestmark = pytest.mark.conformance
CLI: Final = "26.2.0"  # the newest that runs on Node.js 20


@pytest.mark.timeout(900)
def test_netlifys_own_program_deploys_to_the_same_api(shipments: tuple[Shipment, Shipment], tmp_path: Path) -> None:  # noqa: F811
    folder = CACHE / "netlify-cli"
    cli = folder / "node_modules" / ".bin" / "netlify"
    if not cli.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        words = ["npm", "install", "--prefix", ".", "--no-audit", "--no-fund", "--silent", f"netlify-cli@{CLI}"]
        subprocess.run(words, cwd=folder, check=True)
    for path, data in planned(shipments[0]).files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    with netlify(swagger()) as cloud:
        run(planned(shipments[1]), hands(cloud))  # the site is there, with another page
        cloud.asked.clear()
        cloud.strangers = True
        environ = {
            **os.environ,
            "NETLIFY_API_URL": cloud.url,
            "NETLIFY_AUTH_TOKEN": TOKEN,
            "HOME": str(tmp_path),
            "CI": "1",
        }
        asked = [str(cli), "deploy", "--site", "churn", "--no-build", "--prod", "--dir", "site", "--json"]
        done = subprocess.run(asked, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr + str(cloud.asked)
        assert json.loads(done.stdout)["site_name"] == "churn", done.stdout
        assert live(cloud) == model(shipments[0])
        assert [each for each in cloud.asked if each.startswith("PUT") and "/files/" in each]
