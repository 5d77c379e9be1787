"""The static page: files that any host can serve and that run the model in the reader's browser.

bundle --*site*--> {path: bytes} --*write*--> folder
"""

import base64
import hashlib
import importlib.resources
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from ketch import extras
from ketch.bundle import Bundle
from ketch.errors import InputError
from ketch.explain import trees
from ketch.page import answered, widgets
from ketch.page.words import LANGUAGES, spoken
from ketch.program import GRAPH_MEMBER, INPUT, MEMBER, Graph, Linear, Text
from ketch.schema.checks import Checker
from ketch.ui import patterns

SCRIPTS: Final = ("app.js", "ask.js", "contract.js", "file.js", "form.js", "papaparse.js", "service.js")
PLAIN: Final = ("program.js", "tokens.js")
LOOKS: Final = ("style.css", "icon.svg")
RUNTIME: Final = "runtime.js"
PAGE: Final = "index.html"
MODEL: Final = "model.json"
HEADERS: Final = "_headers"
FLOAT: Final = 1  # as onnx.TensorProto numbers it
KINDS: Final = ("u1", "i1", "i2", "i4", "f4", "f8")  # of numbers, the smallest first
OWN_PATH: Final = re.compile(r"(/[A-Za-z0-9_-]+)+")
MOST_GOLDEN: Final = 50  # rows whose answers the page looks at before it shows itself


def site(bundle: Bundle, *, runtime: Callable[[], Mapping[str, bytes]], url: str = "") -> dict[str, bytes]:
    """Make all files of the page; with `url` it asks that service, else it runs the model itself.

    `runtime` gives the files of ONNX Runtime for browsers, and is asked where neither a sum nor trees will do.

    Raises:
        InputError: the model cannot run in a browser.
    """
    if url:
        require_origin(url)
    told = model(bundle, url=url)
    wasm = not url and told["program"]["type"] == "graph" and told["trees"] is None
    names = [*SCRIPTS, *PLAIN, *LOOKS, *([RUNTIME] if wasm else [])]
    files = {name: _own(name) for name in names}
    files[MODEL] = msgspec.json.encode(told, order="deterministic")
    if wasm:
        files[GRAPH_MEMBER] = bundle.files[GRAPH_MEMBER]
        files |= {f"ort/{name}": data for name, data in runtime().items()}
    files["app.webmanifest"] = msgspec.json.encode(_manifest(bundle.manifest.name))
    csp = policy(url, wasm=wasm)
    files[PAGE] = _filled("index.html", name=bundle.manifest.name, csp=csp).encode()
    files["sw.js"] = _worker(files)
    files[HEADERS] = _headers(csp).encode()
    return dict(sorted(files.items()))


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files into a folder, over those of an earlier page and nothing else.

    Raises:
        InputError: the folder holds something else.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MODEL).is_file())):
        raise InputError(f"{folder} holds something else", hint="Choose a new folder with -o.")
    try:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}", hint="Choose another with -o.") from None


def require_origin(url: str) -> None:
    """Hold a service's address against what a page may call; /path is one that the page's own host passes on.

    Raises:
        InputError: it is none.
    """
    found = urlsplit(url)
    if OWN_PATH.fullmatch(url):
        return
    if found.scheme not in {"http", "https"} or not found.hostname or found.query or set(url) & set(" ;,'\"<>"):
        raise InputError(f"{url[:80]!r} is no address of a service", hint="Give it as https://model.example.com.")


# ---- the model, for the browser ------------------------------------------------------------------------


def model(bundle: Bundle, *, url: str = "") -> dict[str, Any]:
    """Give what the page knows of the model, and the model itself unless a service at `url` answers.

    Raises:
        InputError: the model has no compiled form, which alone runs in a browser.
    """
    told = widgets.told(bundle) | {
        "words": {lang: spoken(lang) for lang in LANGUAGES},
        "facts": _facts(bundle),
        "url": url.rstrip("/"),
        "program": None,
        "trees": None,
        "golden": [],
        "tolerance": max(bundle.manifest.tolerance, 1e-6),
    }
    if url:
        return told
    program = _program(bundle)
    if program is None:
        raise InputError(
            f"{bundle.manifest.name} is served in its original form, which needs Python",
            hint="Let the page ask a service instead: ketch ui MODEL --static --url https://… "
            "(ketch inspect says why there is no compiled form)",
        )
    return told | {
        "program": _readable(program),
        "trees": climbing(bundle, program) if isinstance(program, Graph) else None,
        "golden": golden(bundle),
    }


def golden(bundle: Bundle) -> list[dict[str, Any]]:
    """Give golden rows with their answers in the words of the wire; the page asks itself these first."""
    listed = answered(bundle, Checker(bundle.contract.fields, lenient=True))[:MOST_GOLDEN]
    return [{"row": each.row, "answer": each.answer} for each in listed]


def _program(bundle: Bundle) -> Linear | Graph | None:
    if bundle.manifest.serves != "compiled":
        return None
    found: Linear | Graph = msgspec.json.decode(bundle.files[MEMBER], type=Linear | Graph)
    return found


def _readable(program: Linear | Graph) -> dict[str, Any]:
    """Give a program as plain data, its texts with patterns that JavaScript reads."""
    told: dict[str, Any] = msgspec.to_builtins(program)
    for place, each in enumerate(program.parts):
        part = each if isinstance(program, Graph) else each.part  # type: ignore[union-attr]
        if isinstance(part, Text):
            own = told["parts"][place] if isinstance(program, Graph) else told["parts"][place]["part"]
            own["script"] = patterns.script(part.pattern)
            own["marks"] = patterns.combining() if part.accents == "unicode" else ""
    return told


def _facts(bundle: Bundle) -> dict[str, str]:
    manifest = bundle.manifest
    origin = {key: value for key, value in manifest.origin.items() if key == "estimator"}
    return {**origin, **manifest.versions, "sha256": bundle.sha256}


# ---- trees ---------------------------------------------------------------------------------------------


def climbing(bundle: Bundle, program: Graph) -> dict[str, Any] | None:
    """Give a sum of trees as plain arrays; None for a graph that is anything else."""
    graph = bundle.files[GRAPH_MEMBER]
    roles = {*program.outputs[0]}
    if len(program.outputs) > 1 or roles not in ({"values"}, {"probabilities"}) or b"TreeEnsemble" not in graph:
        return None
    if bundle.contract.answer.task == "several":
        return None
    fields = [each.name for each in bundle.contract.fields]
    looked = trees.Looked(extras.load("onnx").load_from_string(graph), program, fields)
    try:
        found = trees.summed(looked, next(iter(program.outputs[0].values())))
        sources = [_columns(looked, each.source) for each in found.ensembles]
        single = _is_single(looked, found)
        grown = [
            _grown(each, slope, columns) | {"narrow": narrow}
            for each, slope, (columns, narrow) in zip(found.ensembles, found.slopes, sources, strict=True)
        ]
    except trees.Mixed:
        return None
    return {"bias": list(found.start), "single": single, "ensembles": grown}


def _is_single(looked: trees.Looked, found: trees.Sum) -> bool:
    """Tell whether trees are added up in float32, one after the other, as those of XGBoost.

    Raises:
        Mixed: something else is done with such a sum.
    """
    if not any(node.op_type == "CumSum" for node in looked.nodes):
        return False
    if len(found.ensembles) > 1 or any(found.start) or not set(found.slopes[0].ravel().tolist()) <= {0.0, 1.0}:
        raise trees.Mixed
    return True


def _columns(looked: trees.Looked, name: str) -> tuple[list[int], bool]:
    """Follow a tensor back to the columns of the input that it is made of, and tell whether they went through float32.

    Raises:
        Mixed: more than that became of them.
    """
    owners = looked.owners[INPUT]
    if name == INPUT:
        return list(range(len(owners or ()))), False
    node = next((each for each in looked.nodes if name in each.output), None)
    if node is None:
        raise trees.Mixed
    told = looked.attributes(node)
    if node.op_type == "Identity":
        return _columns(looked, node.input[0])
    if node.op_type == "Cast" and told["to"] in {FLOAT, trees.DOUBLE}:
        own, narrow = _columns(looked, node.input[0])
        return own, narrow or told["to"] == FLOAT
    if node.op_type == "Gather" and told.get("axis", 0) == 1 and node.input[1] in looked.constants:
        own, narrow = _columns(looked, node.input[0])
        return [own[at] for at in looked.constant(node.input[1]).tolist()], narrow
    if node.op_type == "Concat" and told.get("axis") == 1:
        beside = [_columns(looked, each) for each in node.input]
        if len({narrow for _, narrow in beside}) == 1:
            return [column for own, _ in beside for column in own], beside[0][1]
    raise trees.Mixed


def _grown(each: trees.Ensemble, slope: Any, columns: Sequence[int]) -> dict[str, Any]:
    """Write one ensemble as it is walked, yes before no: the column that each node asks, -1 at a leaf.

    Nodes, leaves and trees count in that order. Leaves are worth a number each where a tree adds to one output, that
    of `to`, else one for every output.
    """
    np: Any = extras.load("numpy")
    told = each.told
    steps, tree = (np.array(found) for found in _walked(np, told))
    nodes, leaves, owner = steps[steps >= 0], -steps[steps < 0] - 1, tree[steps < 0]
    asked = np.array(columns)[np.array(told["nodes_featureids"], dtype=int)]
    worth = trees.worth(each, slope)[leaves]
    touched = np.zeros((tree[-1] + 1, worth.shape[1]), dtype=bool)
    np.logical_or.at(touched, owner, worth != 0)
    to = touched.argmax(axis=1) if touched.sum(axis=1).max() <= 1 else None
    members = trees.members(told)
    return {
        "walk": _listed(np, np.where(steps < 0, -1, asked[np.maximum(steps, 0)])),
        "mode": _listed(np, np.array(told["nodes_modes"])[nodes]),
        "nan": _listed(np, np.array(told["nodes_missing_value_tracks_true"])[nodes]),
        "splits": _listed(np, told["nodes_splits"][nodes]),
        "worth": _listed(np, worth if to is None else worth[np.arange(len(owner)), to[owner]]),
        "to": None if to is None else _listed(np, to),
        "members": [
            (at, found[found == found].tolist())
            for at, node in enumerate(nodes.tolist())
            if (found := members.get(node)) is not None
        ],
    }


def _walked(np: Any, told: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Walk all trees: the nodes that are met, a leaf as its number below zero, and the tree that each stands in."""
    ends = []
    for side in ("false", "true"):
        place, leaf = np.array(told[f"nodes_{side}nodeids"]), np.array(told[f"nodes_{side}leafs"], dtype=bool)
        ends.append(np.where(leaf, -place - 1, place).tolist())
    no, yes = ends
    steps: list[int] = []
    owners: list[int] = []
    for tree, root in enumerate(np.array(told["tree_roots"]).tolist()):
        waiting = [root]
        while waiting:
            step = waiting.pop()
            steps.append(step)
            owners.append(tree)
            if step >= 0:
                waiting += [no[step], yes[step]]
            if len(steps) > 3 * len(no):  # trees that share nodes, or a damaged program that leads back to one
                raise trees.Mixed
    return steps, owners


def _listed(np: Any, values: Any) -> list[tuple[str, str]]:
    """Write numbers in the fewest bytes that hold them: all, or the different ones and the place of each among them.

    One that stands alone is what all of them are.
    """
    values = np.asarray(values).ravel()
    different, places = np.unique(values, return_inverse=True)
    if len(different) <= 1:
        return [_narrowed(np, different)]
    shared = [_narrowed(np, different), _narrowed(np, places)]
    alone = [_narrowed(np, values)]
    return min(alone, shared, key=lambda told: sum(len(data) for _, data in told))


def _narrowed(np: Any, values: Any) -> tuple[str, str]:
    with np.errstate(over="ignore", invalid="ignore"):
        kind = next(each for each in KINDS if np.array_equal(values.astype(each), values, equal_nan=True))
    return kind, base64.b64encode(values.astype(f"<{kind}").tobytes()).decode()


# ---- files ---------------------------------------------------------------------------------------------


def policy(url: str, *, wasm: bool) -> str:
    """Write what the page may load: its own files, and the service that it asks."""
    found = urlsplit(url)
    service = f" {found.scheme}://{found.netloc}" if found.netloc else ""
    compiling = " 'wasm-unsafe-eval'" if wasm else ""
    rules = (
        "default-src 'none'",
        f"script-src 'self'{compiling}",
        "style-src 'self'",
        "img-src 'self' data:",
        f"connect-src 'self'{service}",
        "manifest-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join(rules)


def _headers(csp: str) -> str:
    lines = (
        "/*",
        f"  Content-Security-Policy: {csp}; frame-ancestors 'none'",
        "  X-Content-Type-Options: nosniff",
        "  Referrer-Policy: no-referrer",
        "  Cross-Origin-Opener-Policy: same-origin",
        "  Permissions-Policy: camera=(), geolocation=(), microphone=()",
    )
    return "\n".join(lines) + "\n"


def _manifest(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "short_name": name[:12],
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": "#ffffff",
        "theme_color": "#1d5fbf",
        "icons": [{"src": "icon.svg", "sizes": "any", "type": "image/svg+xml"}],
    }


def _worker(files: Mapping[str, bytes]) -> bytes:
    """Write the worker that keeps all files for when there is no network; other files make another worker."""
    whole = hashlib.sha256()
    for name, data in sorted(files.items()):
        whole.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode())
    kept = ["./", *sorted(name for name in files if name != PAGE)]
    told = msgspec.json.encode(kept).decode()
    return _own("sw.js").replace(b'"VERSION"', f'"{whole.hexdigest()}"'.encode()).replace(b"[]", told.encode(), 1)


def _filled(template: str, **values: str) -> str:
    import jinja2

    text = _own(template).decode()
    made: str = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text).render(**values)
    return made


def _own(name: str) -> bytes:
    return importlib.resources.files("ketch.page").joinpath("site", name).read_bytes()
