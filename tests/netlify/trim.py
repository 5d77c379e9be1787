"""What we use of Netlify's own description of its API, cut out of npm's `@netlify/open-api`.

Run it to write `swagger.json` anew: python -m tests.netlify.trim FOLDER/package/dist/swagger.json
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

VERSION: Final = "2.60.0"
KEPT: Final = Path(__file__).with_name("swagger.json")
OPERATIONS: Final = {
    "/accounts": ("get",),
    "/deploys/{deploy_id}": ("get",),
    "/deploys/{deploy_id}/files/{path}": ("put",),
    "/sites": ("get", "post"),
    "/sites/{site_id}": ("get", "delete"),
    "/sites/{site_id}/deploys": ("get", "post"),
    "/sites/{site_id}/deploys/{deploy_id}": ("get", "put"),
    "/sites/{site_id}/deploys/{deploy_id}/restore": ("post",),
    "/user": ("get",),
    "/{account_slug}/sites": ("post",),
}
NAMED: Final = ("siteSetup", "site", "deployFiles", "deploy", "accountMembership", "user", "error")


def trimmed(whole: dict[str, Any]) -> dict[str, Any]:
    """Keep the operations that we use; what stands in many places stands once, under its name."""
    known = {json.dumps(whole["definitions"][name], sort_keys=True): name for name in NAMED}

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            if name := known.get(json.dumps(value, sort_keys=True)):
                return {"$ref": f"#/definitions/{name}"}
            return {key: named(each) for key, each in value.items() if key not in {"description", "tags"}}
        return [named(each) for each in value] if isinstance(value, list) else value

    def inside(value: Any) -> Any:
        return {key: named(each) for key, each in value.items() if key != "description"}

    return {
        "info": {"title": "@netlify/open-api", "version": whole["info"]["version"]},
        "basePath": whole["basePath"],
        "paths": {
            path: {
                "parameters": named(whole["paths"][path].get("parameters", [])),
                **{method: named(whole["paths"][path][method]) for method in methods},
            }
            for path, methods in OPERATIONS.items()
        },
        "definitions": {name: inside(whole["definitions"][name]) for name in NAMED},
    }


def written(told: dict[str, Any]) -> str:
    return json.dumps(told, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    KEPT.write_text(written(trimmed(json.loads(Path(sys.argv[1]).read_text("utf-8")))), "utf-8")
