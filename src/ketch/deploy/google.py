"""What targets of Google Cloud share: who is signed in, its APIs and operations, the image, the secret with the key.

Whoever is signed in is found as Google's own libraries do: application default credentials.
"""

import base64
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ketch import extras
from ketch.deploy import Option, Options, Shipment
from ketch.deploy.images import fingerprint
from ketch.deploy.registry import PINNED, Registry, pushed
from ketch.errors import CloudRefused, DeployError, NoCredentials, NotSettled, UsageError
from ketch.steps import Answers, Call, Done, Hands, Question, Secret, Step, Text, shown
from ketch.steps.rest import Api, Rest, claims_of, innermost

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
HINT: Final = "Sign in with: gcloud auth application-default login"
OURS: Final = {"managed-by": "ketch"}  # the labels by which we know what is ours
DISABLED: Final = "disabled"  # the code of a refusal by an API that is not switched on, or not everywhere yet
ABSENT: Final = ("404", DISABLED)
UNKNOWN: Final = "unknown"  # the code of a refusal because of an account that is not known everywhere yet
NOT_YET: Final = (DISABLED, UNKNOWN)
STRANGER: Final = re.compile(r"service ?account.{0,200}(may|does) not exist", re.IGNORECASE | re.DOTALL)
OPERATION: Final = "operation"  # the code of a refusal that came after a while
PATIENCE: Final = 1800.0  # seconds that an operation may take
EVERY: Final = 3.0
PROPAGATES: Final = 120.0  # seconds in which a new account becomes known everywhere
TRIES: Final = 5  # at a policy that somebody else changes meanwhile
PROJECT: Final = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]|\d{4,20}")
REGION: Final = re.compile(r"[a-z]+(-[a-z]+)+\d{1,2}")
REPOSITORY: Final = re.compile(r"[a-z][a-z0-9-]{0,61}[a-z0-9]")
LINES: Final = 100  # of a log
OPTIONS: Final = (
    Option("project", "The project to deploy into: its ID, as gcloud config get project shows it."),
    Option("region", "Where it runs.", "us-central1"),
    Option("image", "An image that Artifact Registry holds already, by its digest.  [built and pushed]"),
    Option("repository", "The repository of images in Artifact Registry, made where there is none.", "ketch"),
)


# ---- who is signed in --------------------------------------------------------------------------------


def credentials(hands: Hands) -> Any:
    """Find the application default credentials.

    Raises:
        NoCredentials: there are none.
    """
    if "google" not in hands.kept:
        auth: Any = extras.load("google.auth")
        exceptions: Any = extras.load("google.auth.exceptions")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a quota project; the API says it better, where one is needed
                hands.kept["google"], _ = auth.default(scopes=[SCOPE])
        except exceptions.GoogleAuthError as error:
            raise NoCredentials(f"Nobody is signed in to Google Cloud: {error}", hint=HINT) from None
    return hands.kept["google"]


def token(hands: Hands) -> str:
    """Give a token that the APIs take, a new one when it is about to end.

    Raises:
        NoCredentials: nobody is signed in, or not any more.
    """
    found = credentials(hands)
    if not found.valid:
        _refreshed(found)
    return Secret(found.token)


def _refreshed(found: Any) -> None:
    exceptions: Any = extras.load("google.auth.exceptions")
    transport: Any = extras.load("google.auth.transport.requests")
    try:
        found.refresh(transport.Request())
    except exceptions.TransportError as error:
        raise CloudRefused(
            f"Google Cloud cannot be reached to sign in: {innermost(error)}",
            reason="unreachable",
            hint="Check the network, and run the same command again.",
        ) from None
    except exceptions.GoogleAuthError as error:
        told = error.args[0] if error.args else error
        raise NoCredentials(f"Google Cloud does not accept who is signed in: {told}", hint=HINT) from None


def _headers(hands: Hands) -> Mapping[str, str]:
    """Name the project that is charged with the calls, where the credentials say one."""
    project = getattr(credentials(hands), "quota_project_id", None)
    return {"x-goog-user-project": project} if project else {}


@dataclass(frozen=True)
class Identity:
    """Make a token that says who calls, for one service behind Google's own gate."""

    audience: Any

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"identity": f"a token for {shown(self.audience)}"}

    def done(self, hands: Hands) -> Any:
        """Make it.

        Raises:
            NoCredentials: these credentials make none.
        """
        own = getattr(credentials(hands), "id_token", None) if token(hands) else None
        if own:  # a person's: it is good for every service that lets them in
            return Secret(own)
        exceptions: Any = extras.load("google.auth.exceptions")
        id_token: Any = extras.load("google.oauth2.id_token")
        transport: Any = extras.load("google.auth.transport.requests")
        try:
            return Secret(id_token.fetch_id_token(transport.Request(), str(self.audience)))
        except exceptions.GoogleAuthError as error:
            raise NoCredentials(f"No token says who calls: {error}", hint=HINT) from None


@dataclass(frozen=True)
class SignedIn:
    """Ask who is signed in."""

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"identity": "application default credentials"}

    def done(self, hands: Hands) -> Any:
        """Give a name, as well as the credentials tell it."""
        token(hands)
        found = credentials(hands)
        claims = claims_of(getattr(found, "id_token", None) or "")
        names = (getattr(found, each, None) for each in ("service_account_email", "account"))
        return next((each for each in (*names, claims.get("email")) if each), type(found).__module__)


# ---- the APIs ----------------------------------------------------------------------------------------


def api(name: str, service: str, region: str = "") -> Api:
    """Name an API, at the address that gcloud calls it by, too."""
    host = f"{region}-{service}" if region else service
    variable = f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service.upper()}"
    return Api(name, f"https://{host}.googleapis.com", token, variable, _headers)


ARTIFACTS: Final = api("Artifact Registry", "artifactregistry")
BILLING: Final = api("Cloud Billing", "cloudbilling")
IAM: Final = api("IAM", "iam")
LOGGING: Final = api("Cloud Logging", "logging")
PROJECTS: Final = api("Resource Manager", "cloudresourcemanager")
SECRETS: Final = api("Secret Manager", "secretmanager")
USAGE: Final = api("Service Usage", "serviceusage")


@dataclass(frozen=True)
class Google(Rest):
    """One call of an API of Google; what is not so everywhere yet has a code of its own."""

    def _refused(self, status: int, said: str) -> CloudRefused:
        error = super()._refused(status, said)
        if status == 403 and any(each in said for each in ("SERVICE_DISABLED", "has not been used in project")):
            error.reason = DISABLED
            error.hint = "ketch deploy switches it on; it takes some minutes until that is known everywhere."
        elif status in {400, 403} and STRANGER.search(said):
            error.reason = UNKNOWN
        return error


@dataclass(frozen=True)
class Waited:
    """A call that begins an operation, which is waited for; `version` is that of the API."""

    call: Rest
    version: str = "v1"
    patience: float = PATIENCE

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return self.call.sent()

    def done(self, hands: Hands) -> Any:
        """Ask, and wait.

        Raises:
            CloudRefused: the operation came to nothing. NotSettled: it takes too long.
        """
        found, start = self.call.done(hands) or {}, hands.now()
        while found.get("name") and not found.get("done"):
            if hands.now() - start > self.patience:
                raise NotSettled(
                    f"{found['name']} is not done within {self.patience:,.0f} seconds",
                    hint="Run the same command again: it goes on where the cloud stands.",
                )
            hands.sleep(EVERY)
            found = Google(self.call.api, "GET", f"/{self.version}/{found['name']}").done(hands)
        if error := found.get("error"):
            raise CloudRefused(
                f"{self.call.api.name}: {error.get('message', 'the operation failed')}",
                reason=OPERATION,
                hint="--logs shows what it said; run the same command again when it is mended.",
            )
        return found.get("response")


@dataclass(frozen=True)
class Granted:
    """Give a role to members of something; who has a role keeps it."""

    api: Api
    path: str
    role: str
    members: tuple[str, ...]

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        told = {"role": self.role, "members": list(self.members)}
        return {"http": f"POST {self.api.url}{self.path}:setIamPolicy", "body": told}

    def asked(self) -> Rest:
        """Ask who has which role."""
        return Google(self.api, "GET", f"{self.path}:getIamPolicy")

    def done(self, hands: Hands) -> Any:
        """Read the policy, and write it with this role in it."""
        for left in reversed(range(TRIES)):
            policy = self.asked().done(hands) or {}
            if self.holds(policy):
                return policy
            body = {"policy": {**policy, "bindings": self._bindings(policy)}}
            try:
                return Google(self.api, "POST", f"{self.path}:setIamPolicy", body).done(hands)
            except CloudRefused as error:
                if error.reason not in {"409", "412"} or not left:  # somebody else was faster: read it again
                    raise
            hands.sleep(EVERY)
        return None

    def holds(self, policy: Mapping[str, Any]) -> bool:
        """Say whether a policy says so already."""
        return set(self._members(policy)) >= set(self.members)

    def _members(self, policy: Mapping[str, Any]) -> Iterable[str]:
        for each in policy.get("bindings", ()):
            if each.get("role") == self.role and not each.get("condition"):
                yield from each.get("members", ())

    def _bindings(self, policy: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        members = sorted({*self.members, *self._members(policy)})
        others = [each for each in policy.get("bindings", ()) if each.get("role") != self.role or each.get("condition")]
        return [*others, {"role": self.role, "members": members}]

    def step(self, name: str, title: str) -> Step:
        """Make a step of it."""
        return Step(
            name,
            title,
            look=self.asked(),
            act=lambda found, got: Done(found) if self.holds(found or {}) else self,
            absent=ABSENT,
            again=NOT_YET,
            asks=PROPAGATES,
        )


# ---- where -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A deployment's place: the target, the project and region, and the names of what belongs to it alone."""

    target: str
    name: str
    project: str
    region: str
    repository: str

    @property
    def parent(self) -> str:
        """Name the place in which everything regional stands."""
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def account_id(self) -> str:
        """Name the service account within its project, which all regions and targets share; it has 30 letters."""
        return f"{self.name[:20].rstrip('-')}-{fingerprint(self.target, self.region, self.name)}"

    @property
    def account(self) -> str:
        """Name the service account."""
        domain, _, project = self.project.rpartition(":")
        return f"{self.account_id}@{project}{'.' + domain if domain else ''}.iam.gserviceaccount.com"

    @property
    def images(self) -> str:
        """Name the repository of images."""
        return f"{self.parent}/repositories/{self.repository}"

    @property
    def package(self) -> str:
        """Name the deployment's images in the repository."""
        return f"{self.target}-{self.name}"

    @property
    def secret_id(self) -> str:
        """Name the secret with the calling key within its project."""
        return f"{self.target}-{self.region}-{self.name}"

    @property
    def secret(self) -> str:
        """Name the secret with the calling key."""
        return f"projects/{self.project}/secrets/{self.secret_id}"

    @property
    def labels(self) -> dict[str, str]:
        """Mark what is made for it."""
        return {**OURS, "ketch-deployment": self.name}


def place(target: str, name: str, options: Options) -> Place:
    """Settle where a deployment stands.

    Raises:
        UsageError: the project or the region is missing or none.
    """
    project, region, repository = (str(options[each]) for each in ("project", "region", "repository"))
    if not PROJECT.fullmatch(project):
        raise UsageError(
            f"{project[:60]!r} is no project" if project else "Which project?",
            hint="Give --project; gcloud config get project shows yours.",
        )
    if not REGION.fullmatch(region):
        raise UsageError(f"{region[:60]!r} is no region", hint="Give --region such as europe-west1.")
    if not REPOSITORY.fullmatch(repository):
        raise UsageError(f"{repository[:60]!r} is no repository", hint="Give --repository such as models.")
    return Place(target, name, project, region, repository)


def require_ours(found: Mapping[str, Any], where: Place) -> None:
    """Refuse to change what somebody else made.

    Raises:
        DeployError: it does not bear our labels.
    """
    if not (found.get("labels") or {}).items() >= where.labels.items():
        raise DeployError(
            f"{where.name} is there already, and was not made by ketch deploy",
            hint="Choose another --name; or give it the labels managed-by=ketch and ketch-deployment=" + where.name,
        )


# ---- the steps that targets share --------------------------------------------------------------------


def enabled(where: Place, services: tuple[str, ...]) -> Step:
    """Switch on the APIs that are needed."""
    names = [f"projects/{where.project}/services/{each}.googleapis.com" for each in services]

    def act(found: Any, got: Answers) -> Call | Done:
        on = {
            each["name"].rpartition("/")[2]
            for each in (found or {}).get("services", ())
            if each.get("state") == "ENABLED"
        }
        missing = [each for each in (f"{one}.googleapis.com" for one in services) if each not in on]
        path = f"/v1/projects/{where.project}/services:batchEnable"
        return Waited(Google(USAGE, "POST", path, {"serviceIds": missing})) if missing else Done(found)

    return Step("apis", f"APIs: {', '.join(services)}", look=_services(where.project, names), act=act)


def _services(project: str, names: list[str]) -> Rest:
    return Google(USAGE, "GET", f"/v1/projects/{project}/services:batchGet", query={"names": names})


def account(where: Place) -> Step:
    """Make the service account as which the model runs; it may do nothing."""
    path = f"/v1/projects/{where.project}/serviceAccounts"
    body = {"accountId": where.account_id, "serviceAccount": {"displayName": f"ketch {where.secret_id}"}}
    create = Google(IAM, "POST", path, body)
    return Step(
        "account",
        f"Service account {where.account}",
        look=Google(IAM, "GET", f"{path}/{where.account}"),
        act=lambda found, got: Done(found) if found else create,
        until=lambda found, got: found,
        absent=ABSENT,
        present=("409",),
        again=NOT_YET,
        asks=PROPAGATES,
    )


def images(shipment: Shipment, options: Options, where: Place) -> tuple[tuple[Step, ...], str | Text]:
    """Make the steps that build and push the image, none where it is given; and its name by digest.

    Raises:
        UsageError: the image given is not named by its digest.
    """
    if given := str(options["image"]):
        if not PINNED.fullmatch(given):
            raise UsageError(
                f"{given[:80]!r} does not name an image by its digest",
                hint="Give --image such as REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME@sha256:…",
            )
        return (), given
    body = {"format": "DOCKER", "description": "Model services made by Ketch", "labels": OURS}
    create = Waited(
        Google(ARTIFACTS, "POST", f"/v1/{where.parent}/repositories", body, query={"repositoryId": where.repository})
    )
    repository = Step(
        "repository",
        f"Repository {where.repository} for images",
        look=Google(ARTIFACTS, "GET", f"/v1/{where.images}"),
        act=lambda found, got: Done(found) if found else create,
        until=lambda found, got: found,
        absent=ABSENT,
        present=("409",),
        again=NOT_YET,
        asks=PROPAGATES,
    )
    project = where.project.replace(":", "/")
    step, image = pushed(registry(where), f"{project}/{where.repository}/{where.package}", shipment)
    return (repository, step), image


def registry(where: Place) -> Registry:
    """Name the registry of the region, which takes the token of whoever is signed in for a password."""
    return Registry(f"{where.region}-docker.pkg.dev", lambda hands: ("oauth2accesstoken", token(hands)))


@dataclass(frozen=True)
class KeyKept:
    """Keep a calling key as a new version of a secret; gives the key."""

    secret: str
    key: Secret

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"http": f"POST {SECRETS.url}/v1/{self.secret}:addVersion", "body": {"payload": shown(self.key)}}

    def done(self, hands: Hands) -> Any:
        """Keep it."""
        data = Secret(base64.b64encode(self.key.encode()).decode())
        Google(SECRETS, "POST", f"/v1/{self.secret}:addVersion", {"payload": {"data": data}}).done(hands)
        return self.key


def key(shipment: Shipment, where: Place) -> tuple[Step, ...]:
    """Make the steps that keep the calling key, and let nobody but the service read it; `key` gives it."""
    secret = Step(
        "secret",
        f"Secret {where.secret_id}",
        look=Google(SECRETS, "GET", f"/v1/{where.secret}"),
        act=lambda found, got: Done(found) if found else create,
        until=lambda found, got: found,
        absent=ABSENT,
        present=("409",),
        again=NOT_YET,
        asks=PROPAGATES,
    )
    body = {"replication": {"automatic": {}}, "labels": where.labels}
    create = Google(SECRETS, "POST", f"/v1/projects/{where.project}/secrets", body, query={"secretId": where.secret_id})

    def act(found: Any, got: Answers) -> Call | Done:
        if found is None:
            return KeyKept(where.secret, shipment.key)
        return Done(Secret(base64.b64decode(found["payload"]["data"]).decode()))

    kept = Step(
        "key",
        "The calling key",
        look=Google(SECRETS, "GET", f"/v1/{where.secret}/versions/latest:access"),
        act=act,
        absent=ABSENT,
        again=NOT_YET,
        asks=PROPAGATES,
        secret=True,
    )
    reads = Granted(
        SECRETS, f"/v1/{where.secret}", "roles/secretmanager.secretAccessor", (f"serviceAccount:{where.account}",)
    )
    return secret, kept, reads.step("reads", "Let the service read its key")


def removed(where: Place, *, secret: bool) -> tuple[Step, ...]:
    """Make the steps that remove what these steps made; the repository stays, which others use, too."""
    account = f"/v1/projects/{where.project}/serviceAccounts/{where.account}"
    package = f"/v1/{where.images}/packages/{where.package}"
    parts = [
        ("secret", f"Delete secret {where.secret_id}", SECRETS, f"/v1/{where.secret}", where.labels),
        ("account", f"Delete service account {where.account}", IAM, account, {}),
        ("images", f"Delete the images {where.package}", ARTIFACTS, package, {}),
    ]
    return tuple(
        _deleted(name, title, Google(told, "GET", path), labels)
        for name, title, told, path, labels in parts
        if secret or name != "secret"
    )


def _deleted(name: str, title: str, look: Rest, labels: Mapping[str, str]) -> Step:
    call = Waited(Google(look.api, "DELETE", look.path))

    def act(found: Any, got: Answers) -> Call | Done:
        if found is None or not (found.get("labels") or {}).items() >= labels.items():
            return Done()
        return call

    return Step(name, title, look=look, act=act, absent=ABSENT, present=ABSENT)


# ---- asking ------------------------------------------------------------------------------------------


def logs(where: Place, conditions: str) -> Question:
    """Ask for the last lines of a log."""
    body = {
        "resourceNames": [f"projects/{where.project}"],
        "filter": conditions,
        "orderBy": "timestamp desc",
        "pageSize": LINES,
    }

    def told(found: Any) -> Iterable[tuple[str, str]]:
        for each in reversed((found or {}).get("entries", [])):
            said = each.get("textPayload") or (each.get("jsonPayload") or {}).get("message") or ""
            request = each.get("httpRequest") or {}
            said = said or " ".join(str(request.get(one, "")) for one in ("requestMethod", "requestUrl", "status"))
            yield "ok", f"{each.get('timestamp', '')[:19]} {said}".rstrip()

    return Question("Log", Google(LOGGING, "POST", "/v2/entries:list", body), told)


def doctor(where: Place, services: tuple[str, ...], permissions: tuple[str, ...], quotas: str) -> list[Question]:
    """Ask, by reading only, what every target of Google needs."""
    names = [f"projects/{where.project}/services/{each}.googleapis.com" for each in services]
    project = f"/v3/projects/{where.project}"
    metrics = f"/v1beta1/projects/{where.project}/services/{quotas}.googleapis.com/consumerQuotaMetrics"
    return [
        Question("Signed in", SignedIn(), lambda found: [("ok", str(found))]),
        Question("Project", Google(PROJECTS, "GET", project), _project),
        Question("Billing", Google(BILLING, "GET", f"/v1/projects/{where.project}/billingInfo"), _billing),
        Question("APIs", _services(where.project, names), _apis),
        Question(
            "Permissions",
            Google(PROJECTS, "POST", f"{project}:testIamPermissions", {"permissions": list(permissions)}),
            lambda found: _permissions(found, permissions),
        ),
        Question("Region", Google(ARTIFACTS, "GET", f"/v1/{where.parent}"), _region, absent=("404",)),
        Question("Quotas", Google(USAGE, "GET", metrics), lambda found: _quotas(found, where.region)),
    ]


def _project(found: Any) -> Iterable[tuple[str, str]]:
    state = found.get("state", "")
    yield "ok" if state == "ACTIVE" else "mend", f"{found.get('projectId', '')}: {state.lower()}"


def _billing(found: Any) -> Iterable[tuple[str, str]]:
    if found.get("billingEnabled"):
        yield "ok", "enabled"
    else:
        yield "mend", "not enabled: link a billing account, as console.cloud.google.com/billing shows"


def _apis(found: Any) -> Iterable[tuple[str, str]]:
    for each in found.get("services", ()):
        on = each.get("state") == "ENABLED"
        name = each["name"].rpartition("/")[2]
        yield ("ok", f"{name} is on") if on else ("--", f"{name} is off; ketch deploy switches it on")


def _permissions(found: Any, wanted: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    missing = sorted(set(wanted) - set((found or {}).get("permissions", ())))
    if missing:
        yield "mend", f"missing: {', '.join(missing)}"
    else:
        yield "ok", f"all {len(wanted)} that are needed"


def _region(found: Any) -> Iterable[tuple[str, str]]:
    if found is None:
        yield "mend", "there is no such region: gcloud run regions list shows them"
    else:
        yield "ok", f"{found.get('displayName') or found.get('locationId', '')}"


def _quotas(found: Any, region: str) -> Iterable[tuple[str, str]]:
    shown_any = False
    for metric in (found or {}).get("metrics", ()):
        limits = [each for limit in metric.get("consumerQuotaLimits", ()) for each in limit.get("quotaBuckets", ())]
        own = [each for each in limits if (each.get("dimensions") or {}).get("region") == region]
        for each in own[:1]:
            shown_any = True
            limit = int(each.get("effectiveLimit", 0))
            yield "mend" if limit == 0 else "ok", f"{metric.get('displayName', metric.get('metric'))}: {limit:,}"
    if not shown_any:
        yield "--", f"none is told for {region}"
