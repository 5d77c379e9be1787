"""Netlify: the static page, by the digest API; looked at on an address of its own before everybody sees it.

site files --*draft deploy*--> permalink, looked at --*restore*--> the site, looked at again; else what was there before
"""

import hashlib
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ketch import extras
from ketch.deploy import LIVE_IN, NOT_LIVE, Option, Options, Shipment, Target, require_forms
from ketch.errors import CloudRefused, DeployError, InputError, UsageError
from ketch.steps import Answers, Call, Done, Got, Hands, Plan, Question, Step, Text, shown
from ketch.steps.rest import Api, Rest, from_environ
from ketch.ui.site import HEADERS, PAGE, require_origin

TOKEN: Final = "NETLIFY_AUTH_TOKEN"  # noqa: S105 (the name of a variable)
API: Final = Api(
    "Netlify",
    "https://api.netlify.com",
    from_environ(TOKEN, "Make a personal access token at app.netlify.com/user/applications, and export it."),
    variable="NETLIFY_API_URL",  # as netlify's own program calls it
)
V1: Final = "/api/v1"
PROXIED: Final = "/api"
REDIRECTS: Final = "_redirects"
HIDDEN: Final = (HEADERS, REDIRECTS)  # which Netlify reads and does not serve
BROUGHT: Final = ("prepared", "uploading", "uploaded", "processing", "ready")
FAILED: Final = ("error", "rejected")
LONGEST: Final = 60.0  # seconds that a file may take
CSP: Final = "Content-Security-Policy"
OPTIONS: Final = (
    Option("site", "The site: the first part of its address NAME.netlify.app.  [the deployment's name]"),
    Option("team", "The team that a new site belongs to, by its slug.  [the token's own]"),
    Option("url", "Let the page ask this service instead of running the model in the browser."),
    Option("api", "As --url, but by way of the page's own address, from where Netlify passes it on."),
    Option("to", "With --rollback: the deploy to go back to, by its id.  [the one that was live before]"),
)


def plan(shipment: Shipment, options: Options) -> Plan:
    """Say how the page of a model gets to Netlify.

    Raises:
        UsageError: two ways to a service are given, or there is no page for this model.
    """
    files = page(shipment, options)
    name = options["site"] or shipment.name
    sums = {path: hashlib.sha1(data, usedforsecurity=False).hexdigest() for path, data in files.items()}
    whole = hashlib.sha256("".join(f"{path} {sums[path]}\n" for path in sorted(sums)).encode()).hexdigest()
    title = f"{shipment.label} {whole[:12]}"
    return Plan(
        "netlify",
        shipment.name,
        (
            _site(name, options["team"]),
            Step("before", "See what is live", look=_of_site()),
            _draft(title, sums),
            _prepared(),
            _uploaded(files),
            _looked("draft", "Look at the new page on an address of its own", Got("ready", ("deploy_ssl_url",)), files),
            _published("publish", "Publish it", Got("ready", ("id",))),
            _smoke(files),
        ),
        files={"netlify.toml": _by_hand(), **{f"site/{path}": data for path, data in sorted(files.items())}},
        uses={"netlify.free": 1},
        notes=_notes(name, options),
    )


def page(shipment: Shipment, options: Options) -> dict[str, bytes]:
    """Make the files of the page, as they are published.

    Raises:
        UsageError: two ways to a service are given. InputError: one is no address.
    """
    require_forms(
        options, {"site": (r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?", "churn, as it stands before .netlify.app")}
    )
    url, api = (options[each].rstrip("/") for each in ("url", "api"))
    if url and api:
        raise UsageError("--url and --api are two ways to a service", hint="Give one of them.")
    if shipment.site is None:
        raise UsageError("There is no page to publish", hint="Give a model.")
    if not api:
        return dict(shipment.site(url))
    require_origin(api)
    if not api.startswith("http"):
        raise InputError(f"{api[:80]!r} is no address of a service", hint="Give it as https://model.example.com.")
    passed_on = f"{PROXIED}/*  {api}/:splat  200\n"
    return {**shipment.site(PROXIED), REDIRECTS: passed_on.encode()}


def _by_hand() -> bytes:
    return b'# For `netlify deploy`, whoever carries on by hand.\n[build]\n  publish = "site"\n'


def _notes(name: str, options: Options) -> tuple[str, ...]:
    live = f"the page will be at https://{name}.netlify.app, for everybody who has its address"
    if options["url"]:
        origin = f"the service must allow the page's origin: --cors https://{name}.netlify.app"
        return (live, origin)
    if options["api"]:
        return (live, "Netlify waits 26 seconds for an answer of the service", "readers give the service's key")
    return (live, "the model itself can be read there: it runs in the reader's browser")


# ---- steps -------------------------------------------------------------------------------------------


def _site(name: str, team: str) -> Step:
    body = {"name": name, "processing_settings": {"html": {"pretty_urls": False}}}
    make = Rest(
        API,
        "POST",
        f"{V1}/{urllib.parse.quote(team, safe='')}/sites" if team else f"{V1}/sites",
        body=body,
        hints={"422": "A name of a site is taken once in the whole of Netlify: choose another with --site."},
    )

    def act(found: Any, got: Answers) -> Call | Done:
        known = named(found, name)
        return make if known is None else Done(known)

    return Step("site", f"Make the site {name}", make, look=_sites(name), act=act)


def _one(found: Any, name: str, make: Call) -> Call | Done:
    site = named(found, name)
    return make if site is None else Done(site)


def _sites(name: str) -> Rest:
    return Rest(API, "GET", f"{V1}/sites", query={"name": name, "filter": "all"})


def named(found: Any, name: str) -> Any:
    """Give the site of a name; Netlify lists those that only contain it, too."""
    return next((each for each in found or () if each.get("name") == name), None)


def _of_site(rest: str = "", method: str = "GET", **more: Any) -> Rest:
    return Rest(API, method, Text((f"{V1}/sites/", Got("site", ("id",)), rest)), **more)


def _draft(title: str, sums: Mapping[str, str]) -> Step:
    """Begin a deploy that nobody sees; one of the same files is used again."""
    told = {"files": dict(sorted(sums.items())), "draft": True}
    make = _of_site("/deploys", "POST", query={"title": title}, body=told)

    def act(found: Any, got: Answers) -> Call | Done:
        same = [each for each in found or () if each.get("title") == title and each.get("state") not in FAILED]
        return Done(same[0]) if same else make

    return Step("deploy", "Tell Netlify the files by their sums", make, look=_of_site("/deploys"), act=act)


def _deploy() -> Rest:
    return Rest(API, "GET", Text((f"{V1}/deploys/", Got("deploy", ("id",)))))


def _prepared() -> Step:
    def until(found: Any, got: Answers) -> Any:
        return _unbroken(found) if found["state"] in BROUGHT or found.get("required") else None

    return Step("prepared", "Ask which files are missing there", look=_deploy(), until=until, every=1.0)


def _uploaded(files: Mapping[str, bytes]) -> Step:
    upload = Upload(Got("deploy", ("id",)), Got("prepared", ("required",)), files)

    def act(found: Any, got: Answers) -> Call | Done:
        return upload if found["state"] != "ready" and got["prepared"].get("required") else Done()

    def until(found: Any, got: Answers) -> Any:
        return found if _unbroken(found)["state"] == "ready" else None

    title = "Upload those, and wait until all is there"
    return Step("ready", title, upload, look=_deploy(), act=act, until=until, every=1.0)


def _unbroken(found: Any) -> Any:
    if found["state"] in FAILED:
        raise DeployError(
            f"Netlify could not take the files: {found.get('error_message') or found['state']}",
            hint="Run the same command again: it begins a new deploy.",
        )
    return found


def _looked(name: str, title: str, url: Got, files: Mapping[str, bytes], amends: tuple[Step, ...] = ()) -> Step:
    served = {path: data for path, data in files.items() if path not in HIDDEN}
    call = Served(url, served, policy_of(files))
    return Step(name, title, call, again=(NOT_LIVE,), asks=LIVE_IN, amends=amends)


def _published(name: str, title: str, deploy: Got) -> Step:
    """Let everybody see a deploy."""
    publish = Rest(API, "POST", _restoring(deploy))

    def act(found: Any, got: Answers) -> Call | Done:
        return Done(found) if _live(found) == _walk(deploy, got) else publish

    def until(found: Any, got: Answers) -> Any:
        return found if _live(found) == _walk(deploy, got) else None

    return Step(name, title, publish, look=_of_site(), act=act, until=until, every=1.0)


def _restoring(deploy: str | Got) -> Text:
    return Text((f"{V1}/sites/", Got("site", ("id",)), "/deploys/", deploy, "/restore"))


def _walk(wanted: Got, got: Answers) -> Any:
    return got[wanted.step][wanted.path[0]]


def _live(site: Any) -> str:
    return str(((site or {}).get("published_deploy") or {}).get("id") or "")


def _smoke(files: Mapping[str, bytes]) -> Step:
    """Look at what everybody sees now; where it is not the new page, the one before is published again."""

    def act(found: Any, got: Answers) -> Call | Done:
        old = _live(got["before"])
        return Rest(API, "POST", _restoring(old)) if old and old != _live(found) else Done(found)

    back = Step("restored", "Publish again what was live before", look=_of_site(), act=act)
    url = Got("publish", ("ssl_url",))
    return _looked("smoke", "See whether the live page is this one, byte for byte", url, files, (back,))


# ---- calls of more than one request ------------------------------------------------------------------


@dataclass(frozen=True)
class Upload:
    """Send the files whose sums Netlify does not know yet."""

    deploy: str | Got
    required: Sequence[str] | Got
    files: Mapping[str, bytes] = field(repr=False)

    def sent(self) -> Mapping[str, object]:
        """Say what is sent."""
        return {"http": f"PUT {API.url}{V1}/deploys/{self.deploy}/files/…", "files": shown(self.files)}

    def done(self, hands: Hands) -> Any:
        """Send one file after the other; a file that was sent already may be sent again."""
        required: Any = self.required  # what stood for it is in its place when this is asked
        for path, data in self.files.items():
            if hashlib.sha1(data, usedforsecurity=False).hexdigest() in required:
                place = f"{V1}/deploys/{self.deploy}/files/{urllib.parse.quote(path)}"
                Rest(API, "PUT", place, data=data).done(hands)


@dataclass(frozen=True)
class Served:
    """Look whether an address gives these files, byte for byte, and lets the page load no more than it should."""

    url: str | Got
    files: Mapping[str, bytes] = field(repr=False)
    policy: str = ""

    def sent(self) -> Mapping[str, object]:
        """Say what is looked at."""
        return {"compare": list(self.files), "url": str(self.url)}

    def done(self, hands: Hands) -> Any:
        """Fetch and compare, and give the address.

        Raises:
            CloudRefused: something else is there, or nothing yet.
        """
        requests: Any = extras.load("requests")
        for path, data in self.files.items():
            place = f"{str(self.url).rstrip('/')}/{'' if path == PAGE else urllib.parse.quote(path)}"
            try:
                answer = requests.get(place, timeout=LONGEST, headers={"Cache-Control": "no-cache"})
            except requests.RequestException as error:
                raise _otherwise(f"{place} cannot be reached: {error}") from None
            if answer.status_code != 200:
                raise _otherwise(f"{place} answers with {answer.status_code}")
            if answer.content != data:
                raise _otherwise(f"{place} is not the file that was sent")
            if path == PAGE and answer.headers.get(CSP, "") != self.policy:
                raise _otherwise(f"{place} comes without its {CSP}")
        return str(self.url)


def _otherwise(message: str) -> CloudRefused:
    return CloudRefused(
        message,
        reason=NOT_LIVE,
        hint="Turn off what changes pages for this site at Netlify: passwords, snippet injection, asset optimization.",
    )


def policy_of(files: Mapping[str, bytes]) -> str:
    """Give the policy that the page's own headers set."""
    lines = files.get(HEADERS, b"").decode().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.strip().startswith(f"{CSP}:")), "")


# ---- afterwards --------------------------------------------------------------------------------------


def rollback(name: str, options: Options) -> Plan:
    """Say how the page that was live before becomes so again, or the deploy that is named; run again, nothing more."""
    site, to = options["site"] or name, options["to"]

    def chosen(found: Any, got: Answers) -> Any:
        live = _live(got["site"])
        return _earlier(found or (), live, to, name)

    return Plan(
        "netlify",
        name,
        (
            _there(site),
            Step("earlier", "Find the deploy to go back to", look=_of_site("/deploys"), until=chosen),
            _published("publish", "Publish it again", Got("earlier", ("id",))),
        ),
    )


def _earlier(listed: Sequence[Mapping[str, Any]], live: str, to: str, name: str) -> Any:
    """Give the deploy to go back to: the one that is named, else the newest before the live one.

    Where the live one is older than others that were live, it has been gone back to already: then it is that one.

    Raises:
        DeployError: there is none.
    """
    known = sorted((each for each in listed if each.get("published_at")), key=lambda each: str(each["created_at"]))
    ids = [str(each["id"]) for each in known]
    if to:
        found = next((each for each in listed if each["id"] == to), None)
    elif live in ids[:-1]:
        found = known[ids.index(live)]
    else:
        found = known[-2] if live in ids and len(known) > 1 else None
    if found is None:
        raise DeployError(
            f"There is no deploy {to} to go back to".replace("  ", " "),
            hint=f"ketch deploy netlify {name} --status lists them.",
        )
    return found


def _there(site: str) -> Step:
    def until(found: Any, got: Answers) -> Any:
        if (known := named(found, site)) is None:
            raise DeployError(f"There is no site {site}", hint="Name it with --site, as it stands before .netlify.app.")
        return known

    return Step("site", f"Find the site {site}", look=_sites(site), until=until)


def destroy(name: str, options: Options) -> Plan:
    """Say how the site goes, with all of its deploys."""
    site = options["site"] or name

    def act(found: Any, got: Answers) -> Call | Done:
        known = named(found, site)
        return Done() if known is None else Rest(API, "DELETE", f"{V1}/sites/{known['id']}")

    gone = Step("site", f"Remove the site {site}, with all its deploys", look=_sites(site), act=act, present=("404",))
    return Plan("netlify", name, (gone,), notes=(f"the name {site} becomes free for anybody",))


def status(name: str, options: Options) -> tuple[Question, ...]:
    """Ask how the site is, and which deploys there are to go back to."""
    site = options["site"] or name

    def told(found: Any) -> Iterable[tuple[str, str]]:
        known = named(found, site)
        if known is None:
            return [("--", f"there is no site {site}")]
        live = known.get("published_deploy") or {}
        what = f"serves {live.get('title') or live['id']} since {live.get('published_at', '?')}" if live else "is empty"
        return [("ok" if live else "--", f"{known.get('ssl_url', site)} {what}")]

    listed = Rest(API, "GET", f"{V1}/sites/{site}.netlify.app/deploys", query={"per_page": "20"})
    return (
        Question("site", _sites(site), told),
        Question("deploys", listed, lambda found: [("--", _line(each)) for each in found or ()], absent=("404",)),
    )


def _line(deploy: Mapping[str, Any]) -> str:
    when = f"published {deploy['published_at']}" if deploy.get("published_at") else "never published"
    return f"{deploy['id']} {deploy.get('state', '?')}, {when}: {deploy.get('title') or ''}"


def doctor(name: str, options: Options) -> tuple[Question, ...]:
    """Check who is signed in, for which teams, and whether the site is there."""
    site = options["site"] or name
    questions = [
        Question("account", Rest(API, "GET", f"{V1}/user"), lambda found: [("ok", f"signed in as {_who(found)}")]),
        Question("teams", Rest(API, "GET", f"{V1}/accounts"), lambda found: _teams(found, options["team"])),
    ]
    if site:
        questions.append(Question("site", _sites(site), lambda found: [_known(found, site)]))
    return tuple(questions)


def _who(found: Any) -> str:
    return str(found.get("email") or found.get("full_name") or found.get("id"))


def _teams(found: Any, team: str) -> Iterable[tuple[str, str]]:
    slugs = [str(each.get("slug")) for each in found or ()]
    if team and team not in slugs:
        yield "mend", f"{team} is none of the token's teams: {', '.join(slugs) or 'it has none'}"
    else:
        yield "ok", ", ".join(slugs) or "none"


def _known(found: Any, site: str) -> tuple[str, str]:
    there = named(found, site) is not None
    return ("ok", f"{site} is there") if there else ("--", f"{site} is not there yet, or another account's")


TARGET: Final = Target(
    "netlify",
    "Publish the page that runs the model in the browser, on Netlify.",
    "site",
    plan,
    options=OPTIONS,
    status=status,
    rollback=rollback,
    destroy=destroy,
    doctor=doctor,
)
