"""What targets of AWS share: repository and image, roles, the secret with the calling key, groups of logs.

Every function gives steps that a plan puts together; what one gives is named beside it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ketch import extras
from ketch.deploy import Shipment, images
from ketch.deploy.images import Layer, Packed
from ketch.errors import CloudRefused, NoCredentials
from ketch.steps import Answers, Both, Call, Done, Got, Hands, Question, Secret, Step, Text, resolved
from ketch.steps.aws import HINT, Aws

OURS: Final = "ketch"  # the tag by which we know what was made for a deployment; its value is the deployment's name
PART: Final = 10 * 2**20  # bytes of a layer sent at once, where ECR names no other size
LINES: Final = 100  # of a log
NONE: Final = "NoSuchEntity"
SETTLES: Final = 120.0  # seconds in which IAM comes to know everywhere what it was told


def tags(name: str, **more: str) -> list[dict[str, str]]:
    """Mark what is made for a deployment."""
    return [{"Key": key, "Value": value} for key, value in {OURS: name, **more}.items()]


def is_ours(found: Any, name: str) -> bool:
    """Say whether a list of tags says that it was made for a deployment."""
    return any((each.get("Key"), each.get("Value")) == (OURS, name) for each in found or ())


# ---- who is signed in --------------------------------------------------------------------------------


WHO: Final = Aws("sts", "get_caller_identity")


@dataclass(frozen=True)
class Region:
    """Say which region is meant, which nobody needs to be asked for."""

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"region": "of AWS_DEFAULT_REGION, or of the profile"}

    def done(self, hands: Hands) -> Any:
        """Give its name.

        Raises:
            NoCredentials: none is set.
        """
        boto3: Any = extras.load("boto3")
        exceptions: Any = extras.load("botocore.exceptions")
        try:
            found = boto3.session.Session().region_name
        except exceptions.BotoCoreError as error:
            raise NoCredentials(f"AWS cannot be asked: {error}", hint=HINT) from None
        if not found:
            raise NoCredentials(
                "No region of AWS is set", hint="Set AWS_DEFAULT_REGION, such as us-east-1, or run aws configure."
            )
        return found


def account() -> Step:
    """Ask who is signed in: gives `Account`, `Arn`, `partition` and `region`."""

    def told(found: Any, got: Answers) -> Any:
        return {**found["who"], "partition": found["who"]["Arn"].split(":")[1], "region": found["where"]}

    return Step("account", "Who is signed in", look=Both({"who": WHO, "where": Region()}), until=told)


def signed_in(title: str = "account") -> tuple[Question, ...]:
    """Ask who is signed in, and for which region."""
    return (
        Question(title, WHO, lambda found: [("ok", f"{found['Arn']} in account {found['Account']}")]),
        Question("region", Region(), lambda found: [("ok", str(found))]),
    )


def managed(policy: str) -> Text:
    """Name a policy that AWS keeps, in whichever of its partitions we are."""
    return Text(("arn:", Got("account", ("partition",)), f":iam::aws:policy/{policy}"))


# ---- the image ---------------------------------------------------------------------------------------


def repository(name: str, deployment: str) -> Step:
    """Make the repository of the images; a tag in it never changes its meaning. It gives `repositoryUri`."""
    made = Aws(
        "ecr",
        "create_repository",
        {
            "repositoryName": name,
            "imageTagMutability": "IMMUTABLE",
            "imageScanningConfiguration": {"scanOnPush": True},
            "tags": tags(deployment),
        },
    )
    return Step(
        "repository",
        f"Repository {name} for images",
        look=Aws("ecr", "describe_repositories", {"repositoryNames": [name]}),
        act=lambda found, got: Done(found) if found else made,
        until=lambda found, got: found and found["repositories"][0],
        absent=("RepositoryNotFoundException",),
        present=("RepositoryAlreadyExistsException",),
    )


def pushed(name: str, tag: str, shipment: Shipment, *, base: str = "", **recipe: Any) -> tuple[Step, Step]:
    """Make the repository, build the image and push it, unless its tag is there: `image` gives `imageDigest`.

    With `base`, an archive of a base image, it is made without any container engine.
    """
    call = Push(name, tag, lambda hands: images.packed(shipment, hands, base=base, **recipe))
    step = Step(
        "image",
        f"Image {name}:{tag}",
        look=Aws("ecr", "describe_images", {"repositoryName": name, "imageIds": [{"imageTag": tag}]}),
        act=lambda found, got: Done(found) if found else call,
        until=lambda found, got: found and found["imageDetails"][0],
        absent=("ImageNotFoundException", "RepositoryNotFoundException"),
    )
    return repository(name, name), step


def image(tag: str) -> Text:
    """Name the image of a tag, in the repository of an earlier step."""
    return Text((Got("repository", ("repositoryUri",)), f":{tag}"))


@dataclass(frozen=True)
class Push:
    """Push an image to ECR by its own calls: no engine signs in, so that no password is written anywhere."""

    repository: str
    tag: str
    packed: Callable[[Hands], Packed] = field(repr=False)

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"aws": "ecr.put_image", "params": {"repositoryName": self.repository, "imageTag": self.tag}}

    def done(self, hands: Hands) -> Any:
        """Build it, and push each layer that is not there, then the manifest."""
        packed = self.packed(hands)
        for blob in packed.blobs:
            self._sent(blob, hands)
        params = {"repositoryName": self.repository, "imageTag": self.tag, "imageDigest": packed.digest}
        told = {"imageManifest": packed.manifest.decode(), "imageManifestMediaType": packed.media}
        try:
            return Aws("ecr", "put_image", {**params, **told}).done(hands)
        except CloudRefused as error:
            if error.reason in {"ImageAlreadyExistsException", "ImageTagAlreadyExistsException"}:
                return None  # somebody pushed the same meanwhile
            raise

    def _sent(self, blob: Layer, hands: Hands) -> None:
        named = {"repositoryName": self.repository}
        there = Aws("ecr", "batch_check_layer_availability", {**named, "layerDigests": [blob.digest]}).done(hands)
        if any(each.get("layerAvailability") == "AVAILABLE" for each in there.get("layers", ())):
            return
        hands.told(f"  {blob.digest[:19]}: {len(blob.data):,} bytes")
        begun = Aws("ecr", "initiate_layer_upload", named).done(hands)
        upload = {**named, "uploadId": begun["uploadId"]}
        size = min(int(begun.get("partSize") or PART), 2 * PART)
        for start in range(0, len(blob.data), size):
            part = blob.data[start : start + size]
            told = {"partFirstByte": start, "partLastByte": start + len(part) - 1, "layerPartBlob": part}
            Aws("ecr", "upload_layer_part", {**upload, **told}).done(hands)
        try:
            Aws("ecr", "complete_layer_upload", {**upload, "layerDigests": [blob.digest]}).done(hands)
        except CloudRefused as error:
            if error.reason != "LayerAlreadyExistsException":
                raise


def may_pull(step: str = "repository") -> Text:
    """Write the policy that lets somebody pull images from the repository of an earlier step, and from no other."""
    pull = '["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]'
    return Text(
        (
            '{"Version": "2012-10-17", "Statement": ['
            '{"Effect": "Allow", "Action": ["ecr:GetAuthorizationToken"], "Resource": "*"}, '
            f'{{"Effect": "Allow", "Action": {pull}, "Resource": "',
            Got(step, ("repositoryArn",)),
            '"}]}',
        )
    )


def delete_repository(name: str, deployment: str) -> Step:
    """Delete a repository with its images, when it is ours."""

    def act(found: Any, got: Answers) -> Call | Done:
        if found is None:
            return Done()
        asked = {"resourceArn": found["repositories"][0]["repositoryArn"]}
        return Owned(
            Aws("ecr", "list_tags_for_resource", asked),
            "tags",
            deployment,
            Aws("ecr", "delete_repository", {"repositoryName": name, "force": True}),
        )

    return Step(
        "repository",
        f"Delete repository {name} with its images",
        look=Aws("ecr", "describe_repositories", {"repositoryNames": [name]}),
        act=act,
        absent=("RepositoryNotFoundException",),
        present=("RepositoryNotFoundException",),
    )


@dataclass(frozen=True)
class Owned:
    """Do something to what the tags say is ours; leave it where they do not."""

    tags: Aws
    path: str
    deployment: str
    call: Call

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return self.call.sent()

    def done(self, hands: Hands) -> Any:
        """Look at the tags, and do it."""
        found = self.tags.done(hands).get(self.path)
        if is_ours(found, self.deployment):
            return self.call.done(hands)
        hands.told("  was not made for this deployment: left as it is")
        return None


# ---- the key -----------------------------------------------------------------------------------------


def key_name(deployment: str) -> str:
    """Name the secret with the calling key of a deployment."""
    return f"ketch/{deployment}"


def secret(deployment: str, key: Secret) -> tuple[Step, Step]:
    """Keep the calling key as a secret: `secret` gives `ARN`; `key` gives the key that holds, an older one too."""
    name = key_name(deployment)
    named = {"SecretId": name}
    told = {"Name": name, "SecretString": key, "Description": f"Calling key of {deployment}", "Tags": tags(deployment)}

    def act(found: Any, got: Answers) -> Call | Done:
        if found is None:
            return Aws("secretsmanager", "create_secret", told)
        return Aws("secretsmanager", "restore_secret", named) if found.get("DeletedDate") else Done(found)

    return (
        Step(
            "secret",
            f"Secret {name} with the calling key",
            look=Aws("secretsmanager", "describe_secret", named),
            act=act,
            until=lambda found, got: None if found is None or found.get("DeletedDate") else found,
            absent=("ResourceNotFoundException",),
            present=("ResourceExistsException",),
            again=("InvalidRequestException",),  # one of this name is still being deleted
            patience=SETTLES,
            asks=SETTLES,
        ),
        Step(
            "key",
            "The calling key",
            look=Aws("secretsmanager", "get_secret_value", named),
            until=lambda found, got: Secret(found["SecretString"]) if found else None,
            absent=("ResourceNotFoundException",),
            patience=SETTLES,
            secret=True,
        ),
    )


def may_read_secret(step: str = "secret") -> Text:
    """Write the policy that lets somebody read the secret of an earlier step, and nothing else."""
    return Text(
        (
            '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", '
            '"Action": ["secretsmanager:GetSecretValue"], "Resource": "',
            Got(step, ("ARN",)),
            '"}]}',
        )
    )


def delete_secret(deployment: str) -> Step:
    """Delete the secret of a deployment at once."""
    name = key_name(deployment)
    call = Aws("secretsmanager", "delete_secret", {"SecretId": name, "ForceDeleteWithoutRecovery": True})
    return Step(
        "secret",
        f"Delete secret {name}",
        look=Aws("secretsmanager", "describe_secret", {"SecretId": name}),
        act=lambda found, got: call if found and is_ours(found.get("Tags"), deployment) else Done(),
        absent=("ResourceNotFoundException",),
        present=("ResourceNotFoundException",),
    )


# ---- roles -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Role:
    """A role: who takes it on, and what it may do, by policies that AWS keeps and by some of its own."""

    name: str
    service: str
    deployment: str
    managed: tuple[str, ...] = ()
    own: Mapping[str, str | Text] = field(default_factory=dict)
    external: str = ""

    @property
    def trust(self) -> str:
        """Write who takes it on."""
        statement: dict[str, object] = {
            "Effect": "Allow",
            "Principal": {"Service": self.service},
            "Action": "sts:AssumeRole",
        }
        if self.external:
            statement["Condition"] = {"StringEquals": {"sts:ExternalId": self.external}}
        return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def role(step: str, wanted: Role) -> tuple[Step, ...]:
    """Make a role and let it do what it may: `step` gives `Role.Arn`."""
    named = {"RoleName": wanted.name}
    made = Aws(
        "iam",
        "create_role",
        {
            **named,
            "AssumeRolePolicyDocument": wanted.trust,
            "Description": f"Made by Ketch for {wanted.deployment}",
            "Tags": tags(wanted.deployment),
        },
    )
    return (
        Step(step, f"Role {wanted.name}", made, Aws("iam", "get_role", named), absent=(NONE,)),
        *_attached(step, wanted),
        *(_own(step, wanted, policy, document) for policy, document in wanted.own.items()),
    )


def _attached(step: str, wanted: Role) -> Iterator[Step]:
    if not wanted.managed:
        return
    named = {"RoleName": wanted.name}
    policies = {policy: managed(policy) for policy in wanted.managed}

    def act(found: Any, got: Answers) -> Call | Done:
        there = {each["PolicyArn"] for each in (found or {}).get("AttachedPolicies", ())}
        missing = {policy: arn for policy, arn in policies.items() if resolved(arn, got) not in there}
        calls = {p: Aws("iam", "attach_role_policy", {**named, "PolicyArn": arn}) for p, arn in missing.items()}
        return Both(calls) if calls else Done(found)

    look = Aws("iam", "list_attached_role_policies", named)
    yield Step(f"{step}-policies", f"Policies of {wanted.name}", look=look, act=act, absent=(NONE,), again=(NONE,))


def _own(step: str, wanted: Role, policy: str, document: str | Text) -> Step:
    named = {"RoleName": wanted.name, "PolicyName": policy}

    def act(found: Any, got: Answers) -> Call | Done:
        if found is not None and found["PolicyDocument"] == json.loads(resolved(document, got)):
            return Done(found)
        return Aws("iam", "put_role_policy", {**named, "PolicyDocument": document})

    look = Aws("iam", "get_role_policy", named)
    title = f"Policy {policy} of {wanted.name}"
    return Step(f"{step}-{policy}", title, look=look, act=act, absent=(NONE,), again=(NONE,), asks=SETTLES)


def instance_profile(step: str, name: str, wanted: Role) -> tuple[Step, ...]:
    """Make the profile by which instances take on a role."""
    named = {"InstanceProfileName": name}
    look = Aws("iam", "get_instance_profile", named)
    made = Aws("iam", "create_instance_profile", {**named, "Tags": tags(wanted.deployment)})
    added = Aws("iam", "add_role_to_instance_profile", {**named, "RoleName": wanted.name})

    def act(found: Any, got: Answers) -> Call | Done:
        return Done(found) if found and found["InstanceProfile"]["Roles"] else added

    return (
        Step(step, f"Instance profile {name}", made, look, absent=(NONE,)),
        Step(
            f"{step}-role",
            f"Role {wanted.name} in instance profile {name}",
            look=look,
            act=act,
            absent=(NONE,),
            present=("LimitExceeded",),
            again=(NONE,),
            asks=SETTLES,
        ),
    )


def delete_role(step: str, name: str, deployment: str) -> Step:
    """Delete a role that is ours, with its policies and its instance profiles."""
    named = {"RoleName": name}
    look = Both(
        {
            "role": Aws("iam", "get_role", named),
            "attached": Aws("iam", "list_attached_role_policies", named),
            "own": Aws("iam", "list_role_policies", named),
            "profiles": Aws("iam", "list_instance_profiles_for_role", named),
            "left": Aws("iam", "get_instance_profile", {"InstanceProfileName": name}),  # which the role may have left
        },
        absent=(NONE,),
    )

    def act(found: Any, got: Answers) -> Call | Done:
        if found["role"] is None or not is_ours(found["role"]["Role"].get("Tags"), deployment):
            return Done()
        return Both(dict(_undone(found, named)), absent=(NONE,))

    return Step(step, f"Delete role {name}", look=look, act=act)


def _undone(found: Any, named: Mapping[str, str]) -> Iterator[tuple[str, Call]]:
    for each in (found["attached"] or {}).get("AttachedPolicies", ()):
        asked = {**named, "PolicyArn": each["PolicyArn"]}
        yield f"detach {each['PolicyName']}", Aws("iam", "detach_role_policy", asked)
    for each in (found["own"] or {}).get("PolicyNames", ()):
        yield f"delete {each}", Aws("iam", "delete_role_policy", {**named, "PolicyName": each})
    inside = [each["InstanceProfileName"] for each in (found["profiles"] or {}).get("InstanceProfiles", ())]
    for each in inside:
        left = {"InstanceProfileName": each, **named}
        yield f"leave {each}", Aws("iam", "remove_role_from_instance_profile", left)
    alone = [found["left"]["InstanceProfile"]["InstanceProfileName"]] if found["left"] else []
    for each in dict.fromkeys([*inside, *alone]):
        yield f"delete {each}", Aws("iam", "delete_instance_profile", {"InstanceProfileName": each})
    yield "role", Aws("iam", "delete_role", named)


# ---- logs --------------------------------------------------------------------------------------------


def log_group(name: str, deployment: str, days: int = 30) -> tuple[Step, Step]:
    """Make a group of logs that are kept for some days."""
    look = Aws("logs", "describe_log_groups", {"logGroupNamePrefix": name})
    made = Aws("logs", "create_log_group", {"logGroupName": name, "tags": {OURS: deployment}})
    kept = Aws("logs", "put_retention_policy", {"logGroupName": name, "retentionInDays": days})

    def group(found: Any) -> Any:
        return next((each for each in (found or {}).get("logGroups", ()) if each["logGroupName"] == name), None)

    return (
        Step(
            "logs",
            f"Log group {name}",
            look=look,
            act=lambda found, got: Done(group(found)) if group(found) else made,
            present=("ResourceAlreadyExistsException",),
        ),
        Step(
            "logs-kept",
            f"Logs are kept for {days} days",
            look=look,
            act=lambda found, got: Done() if (group(found) or {}).get("retentionInDays") == days else kept,
        ),
    )


def delete_log_groups(prefix: str, wanted: Callable[[str], bool] = lambda name: True) -> Step:
    """Delete the groups of logs whose names begin so, and are wanted."""

    def act(found: Any, got: Answers) -> Call | Done:
        names = [each["logGroupName"] for each in found["logGroups"] if wanted(each["logGroupName"])]
        calls = {name: Aws("logs", "delete_log_group", {"logGroupName": name}) for name in names}
        return Both(calls, absent=("ResourceNotFoundException",)) if calls else Done()

    look = Aws("logs", "describe_log_groups", {"logGroupNamePrefix": prefix})
    return Step("logs", f"Delete log groups {prefix}…", look=look, act=act)


@dataclass(frozen=True)
class Tail:
    """Read the last lines of a group of logs."""

    group: str
    lines: int = LINES

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"aws": "logs.get_log_events", "params": {"logGroupName": self.group}}

    def done(self, hands: Hands) -> Any:
        """Ask for the stream that was written to last, and its end: a list of lines."""
        asked = {"logGroupName": self.group, "orderBy": "LastEventTime", "descending": True}
        found = Aws("logs", "describe_log_streams", {**asked, "PaginationConfig": {"MaxItems": 1}}).done(hands)
        if not found.get("logStreams"):
            return []
        stream = {"logGroupName": self.group, "logStreamName": found["logStreams"][0]["logStreamName"]}
        said = Aws("logs", "get_log_events", {**stream, "limit": self.lines, "startFromHead": False}).done(hands)
        return [str(each["message"]).rstrip() for each in said["events"]]


def logs(group: str) -> tuple[Question, ...]:
    """Ask what was said last in a group of logs, which need not be there."""
    absent = ("ResourceNotFoundException",)
    return (Question("logs", Tail(group), lambda found: [("--", each) for each in found or ()], absent),)
