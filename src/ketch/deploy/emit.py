"""The pipeline that deploys: a file for GitHub Actions or GitLab CI/CD, which signs in without any stored key.

target, model, flags --*pipeline*--> {path: text}      change --check, plan--> merged --check, deploy--> live
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ketch import extras
from ketch.errors import UsageError

KINDS: Final = ("github", "gitlab")
PATHS: Final = {"github": ".github/workflows/deploy-{name}.yml", "gitlab": ".gitlab-ci.yml"}
PYTHON: Final = "3.12"
AMAZON: Final = ("beanstalk", "ecs", "lambda", "sagemaker")
GOOGLE: Final = ("cloudrun", "vertex")
EXTRAS: Final = {**dict.fromkeys(AMAZON, "aws,image"), **dict.fromkeys(GOOGLE, "google,image")} | {
    "containerapps": "azure,image",
    "netlify": "deploy",
}
CHECKOUT: Final = "actions/checkout@v7.0.1"
SETUP: Final = "actions/setup-python@v7.0.0"
SIGN_IN: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {  # by GitHub's own identity; what is named is no secret
    "aws": (
        "aws-actions/configure-aws-credentials@v6.2.3",
        {"role-to-assume": "${{ vars.AWS_ROLE_ARN }}", "aws-region": "${{ vars.AWS_REGION }}"},
    ),
    "google": (
        "google-github-actions/auth@v3.0.0",
        {
            "workload_identity_provider": "${{ vars.GCP_WORKLOAD_IDENTITY_PROVIDER }}",
            "service_account": "${{ vars.GCP_SERVICE_ACCOUNT }}",
        },
    ),
    "azure": (
        "azure/login@v3.0.2",
        {
            "client-id": "${{ vars.AZURE_CLIENT_ID }}",
            "tenant-id": "${{ vars.AZURE_TENANT_ID }}",
            "subscription-id": "${{ vars.AZURE_SUBSCRIPTION_ID }}",
        },
    ),
}
HARMLESS: Final = re.compile(r"[A-Za-z0-9._/:@=,+ -]*", re.ASCII)


@dataclass(frozen=True)
class Wanted:
    """What a pipeline deploys: where to, which file, under which name, with which flags, by which Ketch."""

    target: str
    model: str
    name: str
    flags: tuple[str, ...] = ()
    version: str = ""
    cloud: str = field(init=False)

    def __post_init__(self) -> None:
        """Refuse what no pipeline can deploy, or what could mean something else in its file.

        Raises:
            UsageError: it is so.
        """
        if self.target not in EXTRAS:
            raise UsageError(
                f"There is no pipeline for {self.target}", hint=f"There is one for: {', '.join(sorted(EXTRAS))}."
            )
        for word in (self.model, self.name, *self.flags):
            if not HARMLESS.fullmatch(word):
                raise UsageError(
                    f"{word[:60]!r} cannot stand in a pipeline", hint="Use letters, digits and . _ / : = -"
                )
        cloud = "aws" if self.target in AMAZON else "google" if self.target in GOOGLE else self.target
        object.__setattr__(self, "cloud", "azure" if cloud == "containerapps" else cloud)

    @property
    def install(self) -> str:
        """Say how Ketch is installed."""
        pinned = f"=={self.version}" if self.version else ""
        return f"python -m pip install 'ketch[{EXTRAS[self.target]}]{pinned}'"

    @property
    def checks(self) -> list[str]:
        """Say what has to hold before anything is deployed."""
        model = shlex.quote(self.model)
        return [
            "if [ -d tests ]; then python -m pip install pytest && python -m pytest; fi",
            f"ketch inspect {model}",
            f"if [ -f {model}.sig ]; then ketch verify {model}; fi",
        ]

    def deploy(self, *more: str) -> str:
        """Say how it is deployed."""
        return shlex.join(["ketch", "deploy", self.target, self.model, "--name", self.name, *self.flags, *more])


def pipeline(kind: str, wanted: Wanted) -> dict[str, str]:
    """Write the pipeline of a kind.

    Raises:
        UsageError: there is no such kind.
    """
    if kind not in KINDS:
        raise UsageError(f"There is no pipeline of {kind[:40]!r}", hint=f"Choose one of: {', '.join(KINDS)}")
    told = _github(wanted) if kind == "github" else _gitlab(wanted)
    head = f"# Written by `ketch deploy {wanted.target} --emit {kind}`. {_needs(wanted)}\n"
    yaml: Any = extras.load("yaml")
    text = yaml.safe_dump(told, sort_keys=False, width=1000, allow_unicode=True)
    return {PATHS[kind].format(name=wanted.name): head + text.replace("'on':", "on:")}


def _needs(wanted: Wanted) -> str:
    if wanted.cloud == "netlify":
        return "Netlify knows no identities of pipelines: its token NETLIFY_AUTH_TOKEN is a secret of the project."
    return "No key is stored: the cloud trusts this project's identity. The page of the documentation says how."


# ---- GitHub ------------------------------------------------------------------------------------------


def _github(wanted: Wanted) -> dict[str, Any]:
    ours = "github.event.pull_request.head.repo.full_name == github.repository"  # no identity is given to forks
    plan: dict[str, Any] = {
        "if": f"github.event_name == 'pull_request' && {ours}",
        "needs": "check",
        **_github_job(wanted, "Show what would change", wanted.deploy("--plan")),
    }
    live: dict[str, Any] = {
        "if": "github.ref == 'refs/heads/main' && github.event_name == 'push'",
        "needs": "check",
        "environment": "production",
        "concurrency": {"group": f"deploy-{wanted.name}", "cancel-in-progress": False},
        **_github_job(wanted, "Deploy", wanted.deploy("--yes")),
    }
    check = [*_github_start(wanted), *({"run": each} for each in wanted.checks)]
    return {
        "name": f"deploy {wanted.name}",
        "on": {"pull_request": {"branches": ["main"]}, "push": {"branches": ["main"]}},
        "permissions": {"contents": "read"},
        "jobs": {
            "check": {"runs-on": "ubuntu-24.04", "timeout-minutes": 20, "steps": check},
            "plan": plan,
            "deploy": live,
        },
    }


def _github_start(wanted: Wanted) -> list[dict[str, Any]]:
    return [
        {"uses": CHECKOUT, "with": {"persist-credentials": False, "lfs": True}},
        {"uses": SETUP, "with": {"python-version": PYTHON}},
        {"run": wanted.install},
    ]


def _github_job(wanted: Wanted, title: str, command: str) -> dict[str, Any]:
    run: dict[str, Any] = {"name": title, "run": command}
    steps = _github_start(wanted)
    if wanted.cloud in SIGN_IN:
        uses, told = SIGN_IN[wanted.cloud]
        steps.append({"uses": uses, "with": dict(told)})
        permissions = {"contents": "read", "id-token": "write"}
    else:
        run["env"] = {"NETLIFY_AUTH_TOKEN": "${{ secrets.NETLIFY_AUTH_TOKEN }}"}
        permissions = {"contents": "read"}
    return {"runs-on": "ubuntu-24.04", "timeout-minutes": 90, "permissions": permissions, "steps": [*steps, run]}


# ---- GitLab ------------------------------------------------------------------------------------------

TOKEN: Final = '"$CI_PROJECT_DIR/.token"'  # noqa: S105 (a file)
GITLAB_SIGN_IN: Final[Mapping[str, Sequence[str]]] = {  # each library finds the token in its file by itself
    "aws": (
        f'printf %s "$CLOUD_TOKEN" > {TOKEN}',  # printf is the shell's own: no process list shows it
        f'export AWS_WEB_IDENTITY_TOKEN_FILE={TOKEN} AWS_ROLE_SESSION_NAME="ketch-$CI_PIPELINE_ID"',
    ),
    "google": (
        f'printf %s "$CLOUD_TOKEN" > {TOKEN}',
        'printf \'{"type":"external_account","audience":"//iam.googleapis.com/%s",'
        '"subject_token_type":"urn:ietf:params:oauth:token-type:jwt","token_url":"https://sts.googleapis.com/v1/token",'
        '"service_account_impersonation_url":"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/'
        '%s:generateAccessToken","credential_source":{"file":"%s"}}\' "$GCP_WORKLOAD_IDENTITY_PROVIDER" '
        '"$GCP_SERVICE_ACCOUNT" "$CI_PROJECT_DIR/.token" > "$CI_PROJECT_DIR/.google.json"',
        'export GOOGLE_APPLICATION_CREDENTIALS="$CI_PROJECT_DIR/.google.json"',
    ),
    "azure": (f'printf %s "$CLOUD_TOKEN" > {TOKEN}', f"export AZURE_FEDERATED_TOKEN_FILE={TOKEN}"),
}
AUDIENCES: Final = {
    "aws": "https://gitlab.com",
    "google": "https://iam.googleapis.com/$GCP_WORKLOAD_IDENTITY_PROVIDER",
    "azure": "api://AzureADTokenExchange",
}
DOCKER: Final = "docker:28.5.1-dind"


def _gitlab(wanted: Wanted) -> dict[str, Any]:
    request, main = '$CI_PIPELINE_SOURCE == "merge_request_event"', "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH"
    live = _gitlab_job(wanted, wanted.deploy("--yes"), main)
    return {
        "workflow": {"rules": [{"if": request}, {"if": main}]},
        "stages": ["check", "plan", "deploy"],
        "default": {"image": f"python:{PYTHON}-bookworm", "before_script": [wanted.install]},
        "check": {"stage": "check", "script": wanted.checks},
        "plan": {"stage": "plan", **_gitlab_job(wanted, wanted.deploy("--plan"), request)},
        "deploy": {
            "stage": "deploy",
            "environment": {"name": "production"},
            "resource_group": f"deploy-{wanted.name}",
            **live,
        },
    }


def _gitlab_job(wanted: Wanted, command: str, rule: str) -> dict[str, Any]:
    made: dict[str, Any] = {"rules": [{"if": rule}], "timeout": "90 minutes"}
    script = [*GITLAB_SIGN_IN.get(wanted.cloud, ()), command]
    if "image" in EXTRAS[wanted.target]:
        made |= {
            "services": [DOCKER],
            "variables": {
                "DOCKER_HOST": "tcp://docker:2376",
                "DOCKER_TLS_VERIFY": "1",
                "DOCKER_TLS_CERTDIR": "/certs",
                "DOCKER_CERT_PATH": "/certs/client",
            },
        }
        script = ["apt-get update -qq && apt-get install -y -qq --no-install-recommends docker.io >/dev/null", *script]
    if wanted.cloud in AUDIENCES:
        made["id_tokens"] = {"CLOUD_TOKEN": {"aud": AUDIENCES[wanted.cloud]}}
    return {**made, "script": script}
