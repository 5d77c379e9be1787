"""An account with Elastic Beanstalk for tests: made afresh for each, deployed to by the real executor of plans."""

import os
import socket
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from ketch import bundle, deploy, image, steps
from ketch.deploy import Shipment, beanstalk
from ketch.steps import Hands, Secret
from tests.fake_beanstalk import Cloud

KEY = "key-of-these-tests-0123456789abcdef"
# by the address of a server, the connections to it, which take longer to make than all that is asked by them
KEPT: defaultdict[str, dict[Any, Any]] = defaultdict(dict)
OPEN = {"source": True, "insecure_http": True, "drain": 30}


def look_up(made: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be the DNS for the names of Elastic Beanstalk."""
    plain = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *words: Any, **more: Any) -> Any:
        if str(host).endswith(".elasticbeanstalk.com"):
            secure = int(port or 0) == 443
            return plain("127.0.0.1", made.balancer.secure_port if secure else made.balancer.port, *words, **more)
        return plain(host, port, *words, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def shipment(path: Path, name: str = "churn", key: str = KEY, wheels: bool = False) -> Shipment:
    data = path.read_bytes()
    opened = bundle.read(data, path.name)

    def context(**recipe: Any) -> image.Context:
        own = [image.sibling("wheels").own_wheel()] if wheels else []
        return image.context(opened, data, own, image.recipe_of(opened, {}, **recipe))

    return Shipment(name, opened, data, Secret(key), context=context)


def options(**given: Any) -> dict[str, Any]:
    return deploy.settled(beanstalk.TARGET, {**OPEN, **given})


def hands(account: Cloud, told: list[str] | None = None) -> Hands:
    said = (told if told is not None else []).append
    return Hands(os.environ, said, account.clock.now, account.clock.sleep, KEPT[account.url])


def deployed(account: Cloud, path: Path, told: list[str] | None = None, key: str = KEY, **given: Any) -> dict[str, Any]:
    return steps.run(beanstalk.plan(shipment(path, key=key), options(**given)), hands(account, told))
