"""Calls of AWS, by boto3: whose credentials, regions, retries and endpoints are those that its users know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ketch import extras
from ketch.errors import CloudRefused, NoCredentials
from ketch.steps import Hands, shown

HINT: Final = (
    "Sign in as for the AWS CLI: aws configure, or AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
)
REGION: Final = "Set AWS_DEFAULT_REGION, such as us-east-1, or run aws configure."
SKEWED: Final = frozenset({"RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"})
STRANGER: Final = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
BUSY: Final = frozenset({"InternalError", "InternalFailure", "RequestLimitExceeded", "ServiceUnavailable", "SlowDown"})
TRIES: Final = 8  # of botocore's own, with growing pauses, where AWS is busy or throttles
SAID: Final = 600  # letters of a refusal
LONGEST: Final = 60  # seconds that an answer may take


@dataclass(frozen=True)
class Aws:
    """One call of an AWS service: `Aws("elasticbeanstalk", "create_environment", {…})`; a list comes back whole.

    `reasons` are texts by which a refusal is told from others of the same code: when one stands in what AWS says, the
    reason is what stands beside it.
    """

    service: str
    operation: str
    params: Mapping[str, Any] = field(default_factory=dict)
    region: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)

    def sent(self) -> Mapping[str, object]:
        """Say what is asked."""
        told = {"aws": f"{self.service}.{self.operation}", "params": shown(self.params)}
        return told | ({"region": self.region} if self.region else {})

    def done(self, hands: Hands) -> Any:
        """Ask AWS.

        Raises:
            CloudRefused: AWS says no; its `reason` is AWS's code. NoCredentials: nobody is signed in.
        """
        exceptions: Any = extras.load("botocore.exceptions")
        parsers: Any = extras.load("botocore.parsers")
        client = _client(self.service, self.region, hands)
        try:
            if client.can_paginate(self.operation):
                return client.get_paginator(self.operation).paginate(**self.params).build_full_result()
            return getattr(client, self.operation)(**self.params)
        except exceptions.ClientError as error:
            told = error.response.get("Error", {})
            message = " ".join(str(told.get("Message") or error).split())[:SAID]
            reason = next((code for text, code in self.reasons.items() if text in message), str(told.get("Code", "")))
            raise CloudRefused(
                f"AWS refused {self.operation}: {message}", reason=reason, hint=_hint(reason, message)
            ) from None
        except exceptions.ParamValidationError as error:
            raise CloudRefused(
                f"{self.operation} cannot be asked so: {error}",
                reason="validation",
                hint="An option has a value that AWS does not take; ketch deploy TARGET --help lists them.",
            ) from None
        except (exceptions.HTTPClientError, exceptions.ConnectionError, parsers.ResponseParserError) as error:
            raise CloudRefused(
                f"AWS cannot be reached: {error}",
                reason="unreachable",
                hint="Check the network and the region, and run the same command again.",
            ) from None
        except exceptions.BotoCoreError as error:  # a profile, a session or a region that is none
            raise _unasked(error) from None


def _unasked(error: Exception) -> NoCredentials:
    """Say why AWS cannot even be asked."""
    return NoCredentials(f"AWS cannot be asked: {error}", hint=REGION if "region" in str(error).lower() else HINT)


def _hint(reason: str, message: str) -> str:
    if reason in SKEWED or "Signature not yet current" in message or "Signature expired" in message:
        return "The clock of this machine is wrong: set it, by NTP for instance, and run the same command again."
    if reason in STRANGER:
        return HINT
    if "Throttl" in reason or reason in BUSY:
        return "AWS is busy: wait a little, and run the same command again."
    if "AccessDenied" in reason or reason == "UnauthorizedOperation":
        return "Ask whoever runs the account for this permission; ketch deploy TARGET --doctor lists what is needed."
    return "ketch deploy TARGET --doctor checks the account."


def _client(service: str, region: str, hands: Hands) -> Any:
    known = ("aws", service, region)
    if known not in hands.kept:
        boto3: Any = extras.load("boto3")
        config: Any = extras.load("botocore.config")
        exceptions: Any = extras.load("botocore.exceptions")
        try:
            session = hands.kept.get(("aws", region))  # which has read what all services share
            session = session or hands.kept.setdefault(
                ("aws", region), boto3.session.Session(region_name=region or None)
            )
            hands.kept[known] = session.client(
                service,
                config=config.Config(retries={"mode": "standard", "max_attempts": TRIES}, read_timeout=LONGEST),
            )
        except (exceptions.BotoCoreError, ValueError) as error:  # the latter where a region is no name of a host
            raise _unasked(error) from None
    return hands.kept[known]
