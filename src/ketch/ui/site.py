"""The static page: files that any host can serve and that run the model in the reader's browser.

bundle --*site*--> {path: bytes} --*write*--> folder
"""

import base64
import hashlib
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from ketch import extras
from ketch.adapters import Raw
from ketch.bundle import Bundle
from ketch.errors import InputError, NotAnswerable
from ketch.explain import trees
from ketch.page import widgets
from ketch.page.words import LANGUAGES, spoken
from ketch.predict import Predictor
from ketch.program import GRAPH_MEMBER, INPUT, MEMBER, Array, Graph, Linear, Text
from ketch.ui import patterns

SCRIPTS: Final = ("app.js", "ask.js", "contract.js", "file.js", "form.js", "papaparse.js", "service.js")
PLAIN: Final = ("program.js", "tokens.js")
LOOKS: Final = ("style.css", "icon.svg")
RUNTIME: Final = "runtime.js"
PAGE: Final = "index.html"
MODEL: Final = "model.json"
HEADERS: Final = "_headers"
MOST_GOLDEN: Final = 50  # rows whose answers the page looks at before it shows itself


def site(bundle: Bundle, *, url: str = "", runtime: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """Make all files of the page; with `url` it asks that service, else it runs the model itself.

    `runtime` holds the files of ONNX Runtime for browsers, for a model that `needs_runtime`.

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
        files |= {f"ort/{name}": data for name, data in (runtime or {}).items()}
    files["app.webmanifest"] = msgspec.json.encode(_manifest(bundle.manifest.name))
    csp = policy(url, wasm=wasm)
    files[PAGE] = _filled("index.html", name=bundle.manifest.name, csp=csp).encode()
    files["sw.js"] = _worker(files)
    files[HEADERS] = _headers(csp).encode()
    return dict(sorted(files.items()))


def needs_runtime(bundle: Bundle) -> bool:
    """Say whether a model takes ONNX Runtime in the browser; linear models and sums of trees do not."""
    told = _program(bundle)
    return told is not None and isinstance(told, Graph) and climbing(bundle, told) is None


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
    """Hold a service's address against what a page may call.

    Raises:
        InputError: it is none.
    """
    found = urlsplit(url)
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
    found, rows = bundle.golden, []
    scores: Any = found.scores
    predictor = Predictor(bundle, _nobody)
    for at, row in enumerate(found.rows[:MOST_GOLDEN]):
        chance = None if found.probabilities is None else found.probabilities[at : at + 1]
        raw = Raw(found.labels[at : at + 1], chance, None if scores is None else scores[at : at + 1])
        try:
            answer = predictor.answer(raw, single=True).columns
        except NotAnswerable:
            continue
        rows.append({"row": row, "answer": {name: values[0] for name, values in answer.items()}})
    return rows


def _nobody(columns: Any, n: int) -> Raw:
    raise NotAnswerable("Only golden answers are at hand", hint="Ask the service.")


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
        grown = [
            _grown(each, slope, columns)
            for each, slope, columns in zip(found.ensembles, found.slopes, sources, strict=True)
        ]
    except trees.Mixed:
        return None
    return {"bias": list(found.start), "ensembles": grown}


def _columns(looked: trees.Looked, name: str) -> list[int]:
    """Follow a tensor back to the columns of the input that it is made of, unchanged."""
    owners = looked.owners[INPUT]
    if name == INPUT:
        return list(range(len(owners or ())))
    node = next((each for each in looked.nodes if name in each.output), None)
    if node is None:
        raise trees.Mixed
    told = looked.attributes(node)
    if node.op_type == "Identity":
        return _columns(looked, node.input[0])
    if node.op_type == "Gather" and told.get("axis", 0) == 1 and node.input[1] in looked.constants:
        own = _columns(looked, node.input[0])
        return [own[at] for at in looked.constant(node.input[1]).tolist()]
    if node.op_type == "Concat" and told.get("axis") == 1:
        return [column for each in node.input for column in _columns(looked, each)]
    raise trees.Mixed


def _grown(each: trees.Ensemble, slope: Any, columns: Sequence[int]) -> dict[str, Any]:
    """Write one ensemble: an end that is a leaf stands as its number below zero, and leaves are worth outputs."""
    np: Any = extras.load("numpy")
    told = each.told
    weights = told["leaf_weights"].astype(float)
    if each.worth is None:
        worth = weights[:, None] * slope[np.array(told["leaf_targetids"], dtype=int)]
    else:
        worth = each.worth[weights.astype(int)] @ slope
    ends = {}
    for name, side in (("yes", "true"), ("no", "false")):
        place, leaf = np.array(told[f"nodes_{side}nodeids"]), np.array(told[f"nodes_{side}leafs"], dtype=bool)
        ends[name] = _integers(np, np.where(leaf, -place - 1, place))
    modes = np.array(told["nodes_modes"], dtype=int)
    return {
        "roots": _integers(np, np.array(told["tree_roots"])),
        "feature": _integers(np, np.array(columns)[np.array(told["nodes_featureids"], dtype=int)]),
        "mode": _integers(np, modes),
        "nan": _integers(np, np.array(told["nodes_missing_value_tracks_true"])),
        "splits": Array.of(told["nodes_splits"].astype(float).reshape(-1, 1)).data,
        "worth": Array.of(worth),
        "members": _members(np, modes, told.get("membership_values")),
        **ends,
    }


def _integers(np: Any, values: Any) -> str:
    return base64.b64encode(np.asarray(values).astype("<i4").tobytes()).decode()


def _members(np: Any, modes: Any, values: Any) -> list[tuple[int, list[float]]]:
    nodes = np.flatnonzero(modes == trees.MEMBER).tolist()
    if not nodes:
        return []
    cuts = np.split(values, np.flatnonzero(np.isnan(values)))
    return [(node, cut[~np.isnan(cut)].tolist()) for node, cut in zip(nodes, cuts, strict=False)]


# ---- files ---------------------------------------------------------------------------------------------


def policy(url: str, *, wasm: bool) -> str:
    """Write what the page may load: its own files, and the service that it asks."""
    found = urlsplit(url)
    service = f" {found.scheme}://{found.netloc}" if url else ""
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
