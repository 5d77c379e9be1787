"""What targets of Azure share: who is signed in, Resource Manager, groups, the registry and who may pull from it.

Whoever is signed in is found as Azure's own libraries do, by DefaultAzureCredential.
"""

import fnmatch
import hashlib
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ketch import extras
from ketch.deploy import Option, Options
from ketch.deploy.registry import ABSENT, Registry, exchanged
from ketch.errors import DeployError, NoCredentials, UsageError
from ketch.steps import Answers, Both, Call, Done, Got, Hands, Question, Secret, Step
from ketch.steps.rest import Api, Rest, claims_of

SCOPE: Final = "https://management.azure.com/.default"
REGISTRY_SCOPE: Final = "https://containerregistry.azure.net/.default"
HINT: Final = "Sign in with: az login"
OURS: Final = "ketch-deployment"  # the tag by which we know what is ours; its value is the deployment's name
NOBODY: Final = "00000000-0000-0000-0000-000000000000"  # the user name that goes with a registry's own token
MARGIN: Final = 300  # seconds before its end in which a token is not used any more
LONGEST: Final = 1800.0  # seconds that a resource may take
EVERY: Final = 5.0
PROPAGATES: Final = 180.0  # seconds in which a new identity becomes known everywhere
BUSY: Final = ("409",)  # something is under way there
PULL: Final = "7f951dda-4ed3-4680-a7ca-43fe172d538d"  # the role AcrPull, which is the same everywhere
SUBSCRIPTION: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
GROUP: Final = re.compile(r"[A-Za-z0-9_().-]{0,89}[A-Za-z0-9_()-]")
LOCATION: Final = re.compile(r"[a-z0-9]{4,30}")
REGISTRY: Final = re.compile(
    r"/subscriptions/[0-9a-f-]{36}/resourceGroups/[^/]+/providers/Microsoft\.ContainerRegistry/registries/[A-Za-z0-9]+"
)
GROUPS_AT: Final = "2025-04-01"
REGISTRY_AT: Final = "2025-11-01"
IDENTITY_AT: Final = "2024-11-30"
ROLES_AT: Final = "2022-04-01"
LOGS_AT: Final = "2025-02-01"
SUBSCRIPTIONS_AT: Final = "2022-12-01"
OPTIONS: Final = (
    Option("subscription", "The subscription to deploy into: its ID, as az account show tells it."),
    Option("location", "Where it runs.", "eastus"),
    Option("resource_group", "The resource group, made where there is none.  [ketch-NAME]"),
    Option("registry", "The resource ID of a container registry that is there already.  [one of its own]"),
    Option("image", "An image that is pushed already, by its digest.  [built and pushed]"),
)


# ---- who is signed in --------------------------------------------------------------------------------


def token(hands: Hands, scope: str = SCOPE) -> str:
    """Give a token for a part of Azure.

    Raises:
        NoCredentials: nobody is signed in.
    """
    known = ("azure", scope)
    kept = hands.kept.get(known)
    if kept is None or kept.expires_on < time.time() + MARGIN:
        identity: Any = extras.load("azure.identity")
        exceptions: Any = extras.load("azure.core.exceptions")
        try:
            logging.getLogger("azure").addHandler(logging.NullHandler())  # which tells of every way that it tries
            credential = hands.kept.setdefault("azure", identity.DefaultAzureCredential())
            kept = hands.kept[known] = credential.get_token(scope)
        except exceptions.ClientAuthenticationError as error:
            told = str(error).splitlines()
            raise NoCredentials(f"Nobody is signed in to Azure: {told[0] if told else ''}", hint=HINT) from None
    return Secret(kept.token)


@dataclass(frozen=True)
class SignedIn:
    """Ask who is signed in."""

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"identity": "DefaultAzureCredential"}

    def done(self, hands: Hands) -> Any:
        """Give a name, as well as the token tells it."""
        claims = claims_of(token(hands))
        return next((claims[each] for each in ("upn", "unique_name", "appid", "oid") if claims.get(each)), "somebody")


ARM: Final = Api("Azure Resource Manager", "https://management.azure.com", token, "ARM_ENDPOINT")


def arm(method: str, path: str, version: str, body: Any = None, **query: str) -> Rest:
    """Make a call of Resource Manager."""
    return Rest(ARM, method, path, body, query={"api-version": version, **query})


# ---- where -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A deployment's place: its subscription, group and location, and the registry it takes images from."""

    name: str
    subscription: str
    group: str
    location: str
    given_registry: str = ""

    @property
    def parent(self) -> str:
        """Name the group."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"

    def resource(self, kind: str, name: str = "") -> str:
        """Name a resource of the group."""
        return f"{self.parent}/providers/{kind}/{name or self.name}"

    @property
    def registry(self) -> str:
        """Name the registry; all the world's share one space of names."""
        if self.given_registry:
            return self.given_registry
        told = hashlib.sha256(f"{self.subscription}/{self.group}/{self.name}".encode()).hexdigest()
        return self.resource("Microsoft.ContainerRegistry/registries", f"ketch{told[:16]}")

    @property
    def server(self) -> str:
        """Give the host of the registry."""
        return f"{self.registry.rpartition('/')[2].lower()}.azurecr.io"

    @property
    def identity(self) -> str:
        """Name the identity that pulls images."""
        return self.resource("Microsoft.ManagedIdentity/userAssignedIdentities")

    @property
    def tags(self) -> dict[str, str]:
        """Mark what is made for it."""
        return {"managed-by": "ketch", OURS: self.name}


def place(name: str, options: Options) -> Place:
    """Settle where a deployment stands.

    Raises:
        UsageError: the subscription is missing, or an option is none.
    """
    subscription, location = str(options["subscription"]).lower(), str(options["location"])
    group, registry = str(options["resource_group"] or f"ketch-{name}"), str(options["registry"])
    if not SUBSCRIPTION.fullmatch(subscription):
        raise UsageError(
            f"{subscription[:60]!r} is no subscription" if subscription else "Which subscription?",
            hint="Give --subscription; az account show --query id shows yours.",
        )
    if not LOCATION.fullmatch(location) or not GROUP.fullmatch(group):
        raise UsageError("The location or the group is none", hint="Give --location such as westeurope.")
    if registry and not REGISTRY.fullmatch(registry):
        raise UsageError(
            f"{registry[:80]!r} is no resource ID of a registry",
            hint="Give --registry as az acr show --name NAME --query id tells it.",
        )
    return Place(name, subscription, group, location, registry)


def is_ours(found: Mapping[str, Any], where: Place) -> bool:
    """Say whether tags tell that something was made for this deployment."""
    return (found.get("tags") or {}).items() >= where.tags.items()


def require_ours(found: Mapping[str, Any], where: Place) -> None:
    """Refuse to change what somebody else made.

    Raises:
        DeployError: it does not bear our tags.
    """
    if not is_ours(found, where):
        raise DeployError(
            f"{found.get('name', where.name)} is there already, and was not made by ketch deploy",
            hint=f"Choose another --name; or give it the tags managed-by=ketch and {OURS}={where.name}.",
        )


# ---- resources ---------------------------------------------------------------------------------------


def settled(found: Any, got: Answers) -> Any:
    """Give a resource once it is whole.

    Raises:
        DeployError: it came to nothing.
    """
    if not found:
        return None
    state = str(found.get("properties", {}).get("provisioningState", "Succeeded"))
    if state in {"Failed", "Canceled"}:
        raise DeployError(
            f"{found.get('name', 'It')} was not made: {state}. {_why(found)}".rstrip(),
            hint="The portal shows more; run the same command again when it is mended.",
        )
    return found if state == "Succeeded" else None


def _why(found: Mapping[str, Any]) -> str:
    told = found.get("properties", {})
    return str(told.get("deploymentErrors") or (told.get("error") or {}).get("message") or "")


def resource(name: str, title: str, where: Place, path: str, version: str, body: Mapping[str, Any]) -> Step:
    """Make the step that makes a resource, unless it is there and ours."""
    whole = {"location": where.location, "tags": where.tags, **body}

    def act(found: Any, got: Answers) -> Call | Done:
        if found:
            require_ours(found, where)
        failed = found and str(found.get("properties", {}).get("provisioningState")) in {"Failed", "Canceled"}
        return Done(found) if found and not failed else arm("PUT", path, version, whole)

    return Step(
        name,
        title,
        look=arm("GET", path, version),
        act=act,
        until=settled,
        absent=ABSENT,
        again=BUSY,
        patience=LONGEST,
        every=EVERY,
    )


def registered(where: Place, namespaces: tuple[str, ...]) -> Step:
    """Let the subscription use the kinds of resources that are needed."""
    base = f"/subscriptions/{where.subscription}/providers"
    look = Both({each: arm("GET", f"{base}/{each}", GROUPS_AT) for each in namespaces})

    def missing(found: Any) -> list[str]:
        return [each for each in namespaces if ((found or {}).get(each) or {}).get("registrationState") != "Registered"]

    def act(found: Any, got: Answers) -> Call | Done:
        calls = {each: arm("POST", f"{base}/{each}/register", GROUPS_AT) for each in missing(found)}
        return Both(calls) if calls else Done(found)

    return Step(
        "providers",
        f"Resource providers: {', '.join(namespaces)}",
        look=look,
        act=act,
        until=lambda found, got: None if missing(found) else True,
        every=EVERY,
    )


def group(where: Place) -> Step:
    """Make the group; one that is there already is used, whoever made it."""
    body = {"location": where.location, "tags": where.tags}
    return Step(
        "group",
        f"Resource group {where.group}",
        look=arm("GET", where.parent, GROUPS_AT),
        act=lambda found, got: Done(found) if found else arm("PUT", where.parent, GROUPS_AT, body),
        until=settled,
        absent=ABSENT,
        every=EVERY,
    )


def identity(where: Place) -> Step:
    """Make the identity that pulls images, and may do nothing else."""
    return resource("identity", f"Identity {where.name}", where, where.identity, IDENTITY_AT, {})


def registry(where: Place) -> tuple[Step, ...]:
    """Make the registry unless one is given, and let the identity pull from it."""
    own = resource(
        "registry",
        f"Registry {where.server}",
        where,
        where.registry,
        REGISTRY_AT,
        {"sku": {"name": "Basic"}, "properties": {"adminUserEnabled": False}},
    )
    return (*(() if where.given_registry else (own,)), _may_pull(where))


def may_not_pull(where: Place) -> Step:
    """Take the right to pull from a registry that stays away again."""
    path = _assignment(where)
    call = arm("DELETE", path, ROLES_AT)
    return Step(
        "pulls",
        "Let the identity pull images no more",
        look=arm("GET", path, ROLES_AT),
        act=lambda found, got: call if found else Done(),
        absent=ABSENT,
        present=ABSENT,
    )


def _assignment(where: Place) -> str:
    number = uuid.uuid5(uuid.NAMESPACE_URL, f"{where.registry}{where.identity}")
    return f"{where.registry}/providers/Microsoft.Authorization/roleAssignments/{number}"


def _may_pull(where: Place) -> Step:
    path = _assignment(where)
    role = f"/subscriptions/{where.subscription}/providers/Microsoft.Authorization/roleDefinitions/{PULL}"
    body = {
        "properties": {
            "roleDefinitionId": role,
            "principalId": Got("identity", ("properties", "principalId")),
            "principalType": "ServicePrincipal",
        }
    }
    return Step(
        "pulls",
        "Let the identity pull images",
        look=arm("GET", path, ROLES_AT),
        act=lambda found, got: Done(found) if found else arm("PUT", path, ROLES_AT, body),
        absent=ABSENT,
        present=BUSY,  # it has the role already, by another name
        again=("400",),  # an identity that was just made is not known everywhere at once
        asks=PROPAGATES,
    )


def images(where: Place) -> Registry:
    """Name the registry to push to: it gives a token of its own for ours."""
    return Registry(where.server, lambda hands: (NOBODY, exchanged(where.server, token(hands, REGISTRY_SCOPE), hands)))


def deleted(name: str, title: str, where: Place, path: str, version: str) -> Step:
    """Delete a resource when it is ours, and wait until it is gone."""

    def act(found: Any, got: Answers) -> Call | Done:
        return arm("DELETE", path, version) if found and is_ours(found, where) else Done()

    return Step(
        name,
        title,
        look=arm("GET", path, version),
        act=act,
        until=lambda found, got: None if found and is_ours(found, where) else True,
        absent=ABSENT,
        present=ABSENT,
        again=BUSY,
        patience=LONGEST,
        every=EVERY,
    )


# ---- asking ------------------------------------------------------------------------------------------


def doctor(where: Place, namespaces: tuple[str, ...], actions: tuple[str, ...]) -> list[Question]:
    """Ask, by reading only, what every target of Azure needs."""
    base = f"/subscriptions/{where.subscription}"
    permissions = f"{where.parent}/providers/Microsoft.Authorization/permissions"
    providers = [
        Question(each, arm("GET", f"{base}/providers/{each}", GROUPS_AT), _provider(where.location))
        for each in namespaces
    ]
    return [
        Question("Signed in", SignedIn(), lambda found: [("ok", str(found))]),
        Question("Subscription", arm("GET", base, SUBSCRIPTIONS_AT), _subscription),
        *providers,
        Question(
            "Permissions",
            arm("GET", permissions, ROLES_AT),
            lambda found: _permissions(found, actions),
            absent=ABSENT,
        ),
    ]


def _subscription(found: Any) -> Iterable[tuple[str, str]]:
    state = str(found.get("state", ""))
    told = f"{found.get('displayName', '')}: {state.lower()}"
    yield "ok" if state == "Enabled" else "mend", told  # Warned and PastDue are bills that were not paid
    if (found.get("subscriptionPolicies") or {}).get("spendingLimit") == "On":
        yield "--", "it has a spending limit, at which everything stops"


def _provider(location: str) -> Callable[[Any], Iterable[tuple[str, str]]]:
    def told(found: Any) -> Iterable[tuple[str, str]]:
        on = found.get("registrationState") == "Registered"
        yield ("ok", "registered") if on else ("--", "not registered; ketch deploy registers it")
        places = {
            str(one).replace(" ", "").lower()
            for each in found.get("resourceTypes", ())
            for one in each.get("locations", ())
        }
        if places and location not in places:
            yield "mend", f"not in {location}: give another --location"

    return told


def _permissions(found: Any, wanted: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    if found is None:
        yield "--", "the resource group is not there yet: they cannot be asked for"
        return
    missing = [each for each in wanted if not any(_lets(one, each) for one in found.get("value", ()))]
    yield ("mend", f"missing: {', '.join(missing)}") if missing else ("ok", f"all {len(wanted)} that are needed")


def _lets(told: Mapping[str, Any], action: str) -> bool:
    def matches(name: str) -> bool:
        return any(fnmatch.fnmatch(action.lower(), str(each).lower()) for each in told.get(name, ()))

    return matches("actions") and not matches("notActions")


def logs_key(where: Place, workspace: str) -> Step:
    """Ask for the key by which an environment writes to a workspace."""
    return Step(
        "logs_key",
        "The key of the workspace",
        arm("POST", f"{workspace}/sharedKeys", LOGS_AT),
        secret=True,
    )
