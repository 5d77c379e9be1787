"""Copy Swagger UI into the package when it is built, so that /docs works offline."""

import shutil
from pathlib import Path
from typing import Any

import flask_swagger_ui
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "LICENSE")


class CopySwagger(BuildHookInterface):
    """Take the files from the pinned build requirement."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Copy once, before the wheel is put together (editable installs too)."""
        origin = Path(flask_swagger_ui.__file__).parent / "dist"
        target = Path(self.root) / "src/ketch/serve/swagger"
        target.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(origin / name, target / name)
