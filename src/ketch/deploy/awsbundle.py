"""Source bundles of Elastic Beanstalk: a zip with its files at the root, the same bytes for the same files.

image | build context --*files*--> Dockerrun.aws.json | Dockerfile … | Procfile … --*zipped*--> bytes --*Stored*--> S3
"""

import base64
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ketch import extras
from ketch.deploy import Shipment
from ketch.errors import DeployError, UsageError
from ketch.steps import Got, Hands, Text, shown
from ketch.steps.aws import Aws

PORT: Final = 9696  # of an image
PYTHON_PORT: Final = "8000"  # of a service beside Elastic Beanstalk's nginx
LONGEST: Final = 500_000_000  # bytes that a source bundle may have
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
PINNED: Final = re.compile(r"([A-Za-z0-9._-]+)==(\S+) --hash=sha256:([0-9a-f]{64})")
HOOKS: Final = (".platform/hooks/", ".platform/confighooks/")
REDIRECT: Final = ".ebextensions/redirect.config"
HANDS_ON: Final = "# Written by `ketch deploy beanstalk`, for whoever carries on with the EB CLI.\n"


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Zip files at the root, in order, at one time; hooks can be executed.

    Raises:
        DeployError: there are more bytes than Elastic Beanstalk takes.
    """
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in sorted(files.items()):
            told = zipfile.ZipInfo(path, EPOCH)
            told.compress_type = zipfile.ZIP_STORED if path.endswith((".whl", ".ketch")) else zipfile.ZIP_DEFLATED
            told.create_system = 3  # POSIX: the modes are those of files
            told.external_attr = (0o100755 if path.startswith(HOOKS) else 0o100644) << 16
            archive.writestr(told, data)
    if len(made.getvalue()) > LONGEST:
        raise DeployError(
            f"The source bundle has {len(made.getvalue()):,} bytes; Elastic Beanstalk takes {LONGEST:,}",
            hint="Deploy by --registry ecr: an image may be larger.",
        )
    return made.getvalue()


def dockerrun(image: str) -> bytes:
    """Write what names an image of a registry; beside it there is no Dockerfile."""
    told = {
        "AWSEBDockerrunVersion": "1",
        "Image": {"Name": image, "Update": "true"},
        "Ports": [{"ContainerPort": PORT}],
    }
    return json.dumps(told, indent=2).encode() + b"\n"


def redirect() -> bytes:
    """Let the load balancer send everybody who comes by HTTP to HTTPS: it has no option for that."""
    redirected = {
        "Host": "#{host}",
        "Path": "/#{path}",
        "Port": "443",
        "Protocol": "HTTPS",
        "Query": "#{query}",
        "StatusCode": "HTTP_301",
    }
    listener = {
        "Type": "AWS::ElasticLoadBalancingV2::Listener",
        "Properties": {
            "LoadBalancerArn": {"Ref": "AWSEBV2LoadBalancer"},
            "Port": 80,
            "Protocol": "HTTP",
            "DefaultActions": [{"Type": "redirect", "RedirectConfig": redirected}],
        },
    }
    return as_yaml({"Resources": {"AWSEBV2LoadBalancerListener": listener}})


def as_yaml(told: Any) -> bytes:
    """Write YAML, in the order given."""
    yaml: Any = extras.load("yaml")
    written: bytes = yaml.safe_dump(told, sort_keys=False, default_flow_style=False, width=100, encoding="utf-8")
    return written


# ---- what goes in ------------------------------------------------------------------------------------


def source(shipment: Shipment, kind: str, recipe: Mapping[str, Any]) -> Mapping[str, bytes]:
    """Give the files of a source bundle that holds everything: `docker`, `python`, or `pipenv`.

    Raises:
        UsageError: the shipment has nothing to make it of.
    """
    if shipment.context is None:
        raise UsageError("There is nothing to make a source bundle of", hint="Deploy a bundle with ketch deploy.")
    context = shipment.context(**recipe)
    if kind == "docker":
        return dict(context.files)
    found = {path: data for path, data in context.files.items() if path.startswith(("model/", "wheels/"))}
    pins = {
        name: (version, digest) for name, version, digest in PINNED.findall(context.files["requirements.txt"].decode())
    }
    own = next(path for path in found if path.startswith("wheels/ketch-"))
    found[own] = needing(found[own], pins)
    pins["ketch"] = (pins["ketch"][0], hashlib.sha256(found[own]).hexdigest())
    command = " ".join(each.replace("/model/", "model/") for each in context.config.command)
    found["Procfile"] = f"web: python -m ketch {command}\n".encode()
    return found | (pipenv(context.python, own, pins) if kind == "pipenv" else {"requirements.txt": requirements(pins)})


Pins = Mapping[str, tuple[str, str]]  # name -> version and hash


def needing(wheel: bytes, there: Collection[str]) -> bytes:
    """Give Ketch's own wheel, which asks for no more than comes along: what only draws on terminals does not.

    pip looks for everything that a wheel asks for, and an image, whose wheels these are, is made without pip.
    """
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    metadata = next(name for name in files if name.endswith(".dist-info/METADATA"))
    record = metadata.replace("METADATA", "RECORD")
    lines = files[metadata].decode().splitlines(keepends=True)
    files[metadata] = "".join(line for line in lines if not _missing(line, there)).encode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(files[metadata]).digest()).rstrip(b"=").decode()
    listed = f"{metadata},sha256={digest},{len(files[metadata])}\n"
    kept = [line for line in files[record].decode().splitlines(keepends=True) if not line.startswith(f"{metadata},")]
    files[record] = "".join([*kept, listed]).encode()
    return zipped(files)


def _missing(line: str, there: Collection[str]) -> bool:
    match = re.match(r"Requires-Dist: *([A-Za-z0-9._-]+)", line)
    return match is not None and "extra ==" not in line and re.sub(r"[-_.]+", "-", match[1]).lower() not in there


def requirements(pins: Pins) -> bytes:
    """Write what pip installs on an instance: the wheels of the bundle, by their hashes, and nothing from elsewhere."""
    lines = [f"{name}=={version} --hash=sha256:{digest}\n" for name, (version, digest) in sorted(pins.items())]
    return "".join(["--no-index\n", "--find-links wheels\n", "--require-hashes\n", *lines]).encode()


def pipenv(python: str, own: str, pins: Pins) -> dict[str, bytes]:
    """Write Pipfile and Pipfile.lock; all but Ketch's own wheel comes from the public index, by its hashes."""
    plette: Any = extras.load("plette")
    lines = ["[[source]]", 'name = "pypi"', 'url = "https://pypi.org/simple"', "verify_ssl = true", "", "[packages]"]
    lines += [f'{name} = "=={version}"' for name, (version, _) in sorted(pins.items()) if name != "ketch"]
    lines += [f'ketch = {{file = "{own}"}}', "", "[requires]", f'python_version = "{python}"', ""]
    text = "\n".join(lines)
    lock = plette.Lockfile.with_meta_from(plette.Pipfile.load(io.StringIO(text)), categories=[])
    lock["default"] = {
        name: {"hashes": [f"sha256:{digest}"], **({"file": own} if name == "ketch" else {"version": f"=={version}"})}
        for name, (version, digest) in sorted(pins.items())
    }
    out = io.StringIO()
    lock.dump(out)
    return {"Pipfile": text.encode(), "Pipfile.lock": out.getvalue().encode()}


@dataclass(frozen=True)
class Stored:
    """Make a source bundle, and keep it in a bucket."""

    bucket: str | Got
    key: str
    image: str | Text
    made: Callable[[str, Hands], Mapping[str, bytes]] = field(repr=False)

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        return {"aws": "s3.put_object", "params": shown({"Bucket": self.bucket, "Key": self.key})}

    def done(self, hands: Hands) -> Any:
        """Make it and send it."""
        data = zipped(self.made(str(self.image), hands))
        hands.told(f"  {self.key}: {len(data):,} bytes")
        named = {"Bucket": self.bucket, "Key": self.key}
        told = {"Body": data, "ContentType": "application/zip", "ChecksumAlgorithm": "SHA256"}
        return Aws("s3", "put_object", {**named, **told}).done(hands)


# ---- for whoever carries on by hand -----------------------------------------------------------------


def eb_files(name: str, environment: str, platform: str, settings: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Write what the EB CLI reads: `eb status`, `eb deploy`, `eb create --cfg NAME` go on from here."""
    config = {
        "branch-defaults": {"default": {"environment": environment, "group_suffix": None}},
        "global": {
            "application_name": name,
            "branch": None,
            "default_ec2_keyname": None,
            "default_platform": platform,
            "default_region": None,
            "include_git_submodules": True,
            "instance_profile": None,
            "platform_name": None,
            "platform_version": None,
            "profile": None,
            "repository": None,
            "sc": None,
            "workspace_type": "Application",
        },
    }
    told: dict[str, dict[str, str]] = {}
    open_ones = []
    for each in settings:
        if isinstance(each["Value"], str):
            told.setdefault(each["Namespace"], {})[each["OptionName"]] = each["Value"]
        else:
            open_ones.append(f"#   {each['Namespace']} {each['OptionName']}: {each['Value']}\n")
    asked = f"{HANDS_ON}# These are known only in the account:\n{''.join(open_ones)}".encode() if open_ones else b""
    saved = {"AWSConfigurationTemplateVersion": "1.1.0.0", "EnvironmentConfigurationMetadata": {"Description": name}}
    return {
        ".ebextensions/ketch.config": asked + as_yaml({"option_settings": told}),
        ".ebignore": b".elasticbeanstalk/\nplan.json\n",
        ".elasticbeanstalk/config.yml": HANDS_ON.encode() + as_yaml(config),
        f".elasticbeanstalk/saved_configs/{name}.cfg.yml": asked + as_yaml({**saved, "OptionSettings": told}),
    }
