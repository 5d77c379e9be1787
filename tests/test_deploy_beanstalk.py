"""Elastic Beanstalk: what its plans say, without asking anybody; tests/ship carries them out."""

import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from ketch.deploy import awsaccount, awsbundle, awsends, awsenvironments, awsoptions, beanstalk, images
from ketch.errors import DeployError, ImageError, KetchError, UsageError
from ketch.steps import Got, Plan, Text, first
from ketch.steps.aws import Aws
from tests.beanstalk_account import KEY, options, shipment
from tests.beanstalk_instances import Refused, require_deployable, unzipped
from tests.clouds import Contract
from tests.doors import Small

WAYS: dict[str, dict[str, Any]] = {
    "image": {"source": False},
    "source": {},
    "python": {"source": False, "platform": "python"},
    "pipenv": {"source": False, "platform": "python", "lock": "pipenv"},
    "tls": {"insecure_http": False, "certificate": "arn:aws:acm:us-east-1:123456789012:certificate/1", "domain": "a.b"},
    "internal": {"insecure_http": False},
    "network": {"vpc": "vpc-1", "subnets": "subnet-1,subnet-2", "private_instances": True},
    "arm": {"instance_type": "t4g.small", "min": 2, "max": 9},
    "log": {"log_secret": "arn:aws:secretsmanager:us-east-1:123456789012:secret:log-abc"},
    "roles": {"instance_profile": "own", "service_role": "own-service"},
    "in place": {"in_place": True, "policy": "Rolling"},
}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    return WAYS[request.param]


def asked(plan: Plan) -> Iterator[Aws]:
    """Give every call of AWS in a plan that can be known beforehand, those of amends too."""
    for step in plan.steps:
        for each in (step, *step.amends):
            for call in (each.look, first(each)):
                yield from _calls(call)


def _calls(value: Any) -> Iterator[Aws]:
    if isinstance(value, Aws):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _calls(each)
    elif is_dataclass(value):
        for each in fields(value):
            yield from _calls(getattr(value, each.name))


def filled(value: Any) -> Any:
    """Put a text in place of what earlier steps give."""
    if isinstance(value, Got | Text):
        return "given-by-an-earlier-step"
    if isinstance(value, dict):
        return {name: filled(each) for name, each in value.items() if name != "PaginationConfig"}
    return [filled(each) for each in value] if isinstance(value, list) else value


def test_every_call_is_one_that_aws_has_with_what_it_takes(small: Small, way: dict[str, Any]) -> None:
    session: Any = pytest.importorskip("botocore.session").get_session()
    validate: Any = pytest.importorskip("botocore.validate")
    plans = [beanstalk.plan(shipment(small.bundle), options(**way))]
    plans += [awsends.rollback("churn", options(**way)), awsends.destroy("churn", options(**way))]
    names = set()
    for plan in plans:
        for call in asked(plan):
            model = session.get_service_model(call.service)
            operation = next(o for o in model.operation_names if amazon_name(o) == call.operation.replace("_", ""))
            shape = model.operation_model(operation).input_shape
            report = validate.ParamValidator().validate(filled(dict(call.params)), shape) if shape else None
            assert report is None or not report.has_errors(), f"{call.operation}: {report.generate_report()}"
            names.add(call.operation)
    assert {"create_application", "get_role", "describe_environments", "describe_events"} <= names


def amazon_name(operation: str) -> str:
    return operation.lower()


def test_settings_are_those_that_new_accounts_and_people_need(small: Small) -> None:
    def setting(way: str, namespace: str, option: str) -> str | None:
        wanted = beanstalk.settle(shipment(small.bundle), options(**WAYS[way]))
        found = [
            each["Value"] for each in wanted.settings if each["Namespace"] == namespace and each["OptionName"] == option
        ]
        return str(found[0]) if found else None

    launch, vpc, listener = "aws:autoscaling:launchconfiguration", "aws:ec2:vpc", "aws:elbv2:listener:443"
    assert setting("image", launch, "RootVolumeType") == "gp3", "new accounts refuse launch configurations"
    assert setting("image", launch, "DisableIMDSv1") == "true"
    assert setting("image", "aws:elasticbeanstalk:environment", "LoadBalancerType") == "application"
    assert setting("image", "aws:elasticbeanstalk:healthreporting:system", "SystemType") == "enhanced"
    health = "aws:elasticbeanstalk:environment:process:default"
    assert setting("image", health, "HealthCheckPath") == "/health/ready"
    assert setting("source", vpc, "ELBScheme") == "public"
    assert setting("internal", vpc, "ELBScheme") == "internal", "without encryption nobody from outside gets in"
    assert setting("tls", listener, "Protocol") == "HTTPS"
    assert setting("source", listener, "Protocol") is None
    assert setting("arm", "aws:ec2:instances", "SupportedArchitectures") == "arm64"
    assert setting("python", awsoptions.ENVIRON, "PORT") == "8000"
    assert setting("image", awsoptions.SECRETS, "KETCH_API_KEYS") == "<secret.ARN>"
    assert setting("network", vpc, "Subnets") == "subnet-1,subnet-2"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"min": 5}, "--min is more"),
        ({"vpc": "vpc-1"}, "--vpc and --subnets"),
        ({"cname": "a.b"}, "cannot begin an address"),
        ({"certificate": "arn:aws:acm:us-east-1:1:certificate/1"}, "two ways"),
        ({"insecure_http": False, "certificate": "arn:aws:acm:us-east-1:1:certificate/1"}, "needs --domain"),
        ({"domain": "churn.example.com"}, "a certificate is for"),
        ({"drain": -1}, "--drain"),
        ({"source": True, "platform": "python"}, "--source is for a container"),
        ({"insecure_http": False, "certificate": "my-certificate", "domain": "a.b"}, "is no --certificate"),
        ({"instance_type": "large"}, "no type of instance"),
        ({"disk": 4}, "RootVolumeSize cannot be '4'"),
        ({"log_secret": "postgresql://user:password@host/db"}, "not the ARN of a secret"),
        ({"subnets": "one", "vpc": "vpc-1"}, "Subnets cannot be 'one'"),
    ],
)
def test_what_cannot_be_is_refused_before_anybody_is_asked(given: dict[str, Any], told: str, small: Small) -> None:
    with pytest.raises(UsageError, match=told):
        beanstalk.plan(shipment(small.bundle), options(**given))


@pytest.mark.parametrize(
    ("namespace", "option", "value", "hint"),
    [
        ("aws:autoscaling:asg", "MinSise", "1", "Did you mean MinSize"),
        ("aws:elasticbeanstalk:enviroment", "ServiceRole", "a", "Did you mean aws:elasticbeanstalk:environment"),
        ("aws:elasticbeanstalk:environment", "LoadBalancerType", "gateway", "It is application or"),
        ("aws:elbv2:listener:443", "Protocol", "TLS", "It is HTTP or HTTPS"),
        ("aws:elasticbeanstalk:application:environment", "A B", "1", "letters"),
        ("aws:elasticbeanstalk:application:environment", "A", "x" * 4096, "fewer or shorter"),
    ],
)
def test_the_table_of_options_says_what_is_meant(namespace: str, option: str, value: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        awsoptions.check([{"Namespace": namespace, "OptionName": option, "Value": value}])
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", ["ab", "a" * 29])
def test_names_at_their_limits(name: str, small: Small) -> None:
    wanted = beanstalk.settle(shipment(small.bundle, name=name), options())
    assert 4 <= len(f"{wanted.environment}-2") <= 40
    assert len(wanted.label) <= 100
    prefix = wanted.prefix({"account": {"Account": "123456789012"}})
    assert len(f"{prefix}-{wanted.content}-2") <= 63
    for role in (awsaccount.instance_role(name, ""), awsaccount.service_role(name)):
        assert len(role.name) <= 64


@pytest.mark.parametrize("name", ["a", "a" * 30])
def test_names_beyond_their_limits(name: str, small: Small) -> None:
    with pytest.raises(UsageError, match="letters"):
        beanstalk.settle(shipment(small.bundle, name=name), options())


def test_a_description_holds_what_must_be_known_and_never_too_much() -> None:
    told = awsenvironments.describe("0a1b2c3d", before="churn-1", earlier="churn-0")
    environment = {"Description": told}
    parts = ("content", "before", "earlier", "instead")
    assert [awsenvironments.told_of(environment, part) for part in parts] == ["0a1b2c3d", "churn-1", "churn-0", ""]
    long = awsenvironments.describe("0a1b2c3d", before="a" * 100, earlier="b" * 100)
    assert len(long) <= 200
    assert awsenvironments.told_of({"Description": long}, "before") == "a" * 100


def test_the_newest_platform_is_found_by_number() -> None:
    stacks = [f"64bit Amazon Linux 2023 v4.{minor} running Docker" for minor in ("9.1", "10.0", "2.30")]
    stacks += ["64bit Amazon Linux 2 v4.99.0 running Docker", "64bit Amazon Linux 2023 v4.1.0 running Python 3.11"]
    assert awsaccount.newest(stacks, "image") == "64bit Amazon Linux 2023 v4.10.0 running Docker"
    assert awsaccount.newest(stacks, "python", "3.11") == "64bit Amazon Linux 2023 v4.1.0 running Python 3.11"
    with pytest.raises(DeployError) as caught:
        awsaccount.newest(stacks, "python", "3.14")
    assert "It offers Python 3.11" in caught.value.hint


def test_the_network_has_two_zones_with_such_instances() -> None:
    def found(*zones: str) -> dict[str, Any]:
        subnets = [{"SubnetId": f"subnet-{z}", "AvailabilityZone": z, "VpcId": "vpc-1"} for z in ("a", "b", "e")]
        offered = {"InstanceTypeOfferings": [{"Location": zone} for zone in zones]}
        return {"vpcs": {"Vpcs": [{"VpcId": "vpc-1"}]}, "subnets": {"Subnets": subnets}, "zones": offered}

    assert awsaccount.network(found("a", "b"), "t3.small") == {"vpc": "vpc-1", "subnets": "subnet-a,subnet-b"}
    with pytest.raises(DeployError, match="no two zones"):
        awsaccount.network(found("e"), "t3.small")


# ---- source bundles ----------------------------------------------------------------------------------


def bundled(small: Small, way: str) -> bytes:
    shipped = shipment(small.bundle, wheels=True)
    wanted = beanstalk.settle(shipped, options(**WAYS[way]))
    return awsbundle.zipped(beanstalk._bundle(shipped, wanted, "1.dkr.ecr.us-east-1.amazonaws.com/churn:1"))


def test_a_source_bundle_is_the_same_every_time_and_has_its_files_at_the_root(small: Small) -> None:
    one = bundled(small, "source")
    assert one == bundled(small, "source")
    with zipfile.ZipFile(io.BytesIO(one)) as archive:
        assert archive.namelist() == sorted(archive.namelist())
        assert {each.external_attr >> 16 for each in archive.infolist()} == {0o100644}
        assert {each.date_time for each in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert require_deployable(unzipped(one), "Docker") == "build"
    hook = awsbundle.zipped({".platform/hooks/prebuild/a.sh": b"#!/bin/sh\n"})
    assert zipfile.ZipFile(io.BytesIO(hook)).infolist()[0].external_attr >> 16 == 0o100755


def test_a_source_bundle_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awsbundle, "LONGEST", 100)
    with pytest.raises(DeployError, match="takes 100"):
        awsbundle.zipped({"a": b"a" * 1000})


def test_dockerrun_names_the_image_and_stands_alone(small: Small) -> None:
    files = unzipped(bundled(small, "image"))
    assert [*files] == ["Dockerrun.aws.json"]
    assert json.loads(files["Dockerrun.aws.json"])["Ports"] == [{"ContainerPort": 9696}]
    assert require_deployable(files, "Docker") == "image"
    with pytest.raises(Refused, match="cannot both be given"):
        require_deployable({**files, "Dockerfile": b"FROM a"}, "Docker")


def test_https_has_a_redirect_in_the_bundle(small: Small) -> None:
    files = unzipped(bundled(small, "tls"))
    yaml = pytest.importorskip("yaml")
    listener = yaml.safe_load(files[".ebextensions/redirect.config"])["Resources"]["AWSEBV2LoadBalancerListener"]
    assert listener["Properties"]["DefaultActions"][0]["RedirectConfig"]["StatusCode"] == "HTTP_301"


def test_the_python_platform_installs_only_what_comes_along(small: Small) -> None:
    files = unzipped(bundled(small, "python"))
    assert files["Procfile"] == b"web: python -m ketch serve model/churn.ketch\n"
    lines = files["requirements.txt"].decode().splitlines()
    assert lines[:3] == ["--no-index", "--find-links wheels", "--require-hashes"]
    assert any(line.startswith("ketch==") and "--hash=sha256:" in line for line in lines)
    assert [path for path in files if path.startswith("wheels/ketch-")]
    assert require_deployable(files, "Python 3.11") == "python"


def test_pipenv_finds_its_lock_in_order(small: Small, tmp_path: Path) -> None:
    files = unzipped(bundled(small, "pipenv"))
    plette = pytest.importorskip("plette")
    with io.StringIO(files["Pipfile"].decode()) as pipfile, io.StringIO(files["Pipfile.lock"].decode()) as lock:
        told, read = plette.Pipfile.load(pipfile), plette.Lockfile.load(lock)
        assert read.is_up_to_date(told)
        assert read.default["ketch"]["file"].startswith("wheels/ketch-")
    assert "requirements.txt" not in files, "it would win"


# ---- images ------------------------------------------------------------------------------------------


def test_an_archive_of_an_image_is_read_as_a_registry_holds_it(tmp_path: Path) -> None:
    layer, config = b"a layer" * 100, b'{"architecture": "amd64"}'
    told = [{"Config": "config.json", "RepoTags": ["churn:1"], "Layers": ["one/layer.tar"]}]
    path = tmp_path / "image.tar"
    members = {"manifest.json": json.dumps(told).encode(), "config.json": config, "one/layer.tar": layer}
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    packed = images.read_archive(path)
    manifest = json.loads(packed.manifest)
    assert [each["digest"] for each in (*manifest["layers"], manifest["config"])] == [b.digest for b in packed.blobs]
    assert images.read_archive(path).manifest == packed.manifest, "the same image has the same digest"
    with tarfile.open(path, "w"):
        pass
    with pytest.raises(ImageError, match="no archive of an image"):
        images.read_archive(path)


# ---- for whoever carries on --------------------------------------------------------------------------


def test_files_for_the_eb_cli(small: Small) -> None:
    yaml = pytest.importorskip("yaml")
    plan = beanstalk.plan(shipment(small.bundle), options(**WAYS["image"]))
    config = yaml.safe_load(plan.files[".elasticbeanstalk/config.yml"])
    assert config["global"]["application_name"] == "churn"
    made = next(step for step in plan.steps if step.name == "environment")
    assert config["branch-defaults"]["default"]["environment"] in made.title
    told = yaml.safe_load(plan.files[".ebextensions/ketch.config"])["option_settings"]
    assert told["aws:autoscaling:launchconfiguration"]["RootVolumeType"] == "gp3"
    assert b"environmentsecrets KETCH_API_KEYS: <secret.ARN>" in plan.files[".ebextensions/ketch.config"]
    assert not [path for path, data in plan.files.items() if KEY.encode() in data]


def test_nothing_of_aws_is_imported_to_make_a_plan() -> None:
    heavy = ("boto3", "botocore", "yaml", "numpy")
    code = f"import sys, ketch.deploy.beanstalk; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestBeanstalk(Contract):
    """The contract."""

    target = beanstalk.TARGET


def test_refusals_have_a_remedy(small: Small) -> None:
    with pytest.raises(KetchError) as caught:
        beanstalk.plan(shipment(small.bundle), options(min=9))
    assert caught.value.hint
