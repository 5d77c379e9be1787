"""Texts: vectorizers become a text of the program, which is cut, counted and weighed in plain Python."""

from dataclasses import replace
from typing import Any

from ketch import extras
from ketch.compiler import NotCompiled, transformer
from ketch.compiler.build import Build
from ketch.compiler.values import Blocks, Column, Tensor, X
from ketch.errors import NotInstalled
from ketch.program import Text


@transformer("CountVectorizer")
def count_vectorizer(g: Build, step: Any, x: X) -> X:
    """Count tokens of a vocabulary."""
    return _made(g, step, x, len(step.vocabulary_), vocabulary=_vocabulary(step))


@transformer("TfidfVectorizer")
def tfidf_vectorizer(g: Build, step: Any, x: X) -> X:
    """Count tokens of a vocabulary and weigh them by their rarity; Salton and Buckley 1988."""
    idf = tuple(map(float, step.idf_)) if step.use_idf else None
    weighed = {"sublinear": step.sublinear_tf, "idf": idf, "norm": step.norm or ""}
    return _made(g, step, x, len(step.vocabulary_), vocabulary=_vocabulary(step), **weighed)


@transformer("HashingVectorizer")
def hashing_vectorizer(g: Build, step: Any, x: X) -> X:
    """Count hashed tokens; Weinberger et al. 2009."""
    try:
        extras.load("mmh3")
    except NotInstalled as error:
        raise NotCompiled(f"hashed texts need a library: {error.hint}") from None
    return _made(g, step, x, step.n_features, signed=step.alternate_sign, norm=step.norm or "")


def _vocabulary(step: Any) -> dict[str, int]:
    return {str(token): int(place) for token, place in sorted(step.vocabulary_.items())}


def _made(g: Build, step: Any, x: X, width: int, **rest: Any) -> Blocks:
    kind = type(step).__name__
    if callable(step.analyzer) or step.tokenizer is not None or step.preprocessor is not None:
        raise NotCompiled(f"{kind} cuts texts by a function of its own")
    if callable(step.strip_accents) or step.dtype == g.np.float32:
        raise NotCompiled(f"{kind} has settings without a compiled form")
    field = _text(g, x, kind)
    text = Text(
        field,
        width,
        analyzer=step.analyzer,
        pattern=step.token_pattern or "",
        ngrams=(int(step.ngram_range[0]), int(step.ngram_range[1])),
        lowercase=bool(step.lowercase),
        accents=step.strip_accents or "",
        stop_words=tuple(sorted(step.get_stop_words() or ())),
        binary=bool(step.binary),
        **rest,
    )
    return Blocks((Column(field, text=text),))


def _text(g: Build, x: X, kind: str) -> str:
    if isinstance(x, Blocks) and len(x.columns) == 1 and x.columns[0].keys == ():
        field = g.fields.get(x.columns[0].field)
        if field is not None and field.type == "text":
            return field.name
    raise NotCompiled(f"{kind} reads something else than one field of text")


@transformer("TfidfTransformer")
def tfidf_transformer(g: Build, step: Any, x: X) -> X:
    """Weigh counts by their rarity."""
    if isinstance(x, Blocks) and len(x.columns) == 1 and (weighed := _weighed(step, x.columns[0])):
        return Blocks((weighed,))
    counts = g.tensor(x)
    if step.sublinear_tf:
        counts = g.node("Where", g.node("Equal", counts, 0.0), counts, g.node("Log", counts) + 1.0)
    return normalized(g, counts * step.idf_[None] if step.use_idf else counts, step.norm)


def _weighed(step: Any, column: Column) -> Column | None:
    """Let the vectorizer weigh what it counts, where nothing stands between."""
    text = column.text
    if text is None or column.kept is not None or text.idf is not None or text.norm or text.sublinear:
        return None
    if step.sublinear_tf and text.signed:
        return None
    idf = tuple(map(float, step.idf_)) if step.use_idf else None
    return replace(column, text=_with(text, sublinear=bool(step.sublinear_tf), idf=idf, norm=step.norm or ""))


def _with(text: Text, **changes: Any) -> Text:
    return Text(**{name: getattr(text, name) for name in text.__struct_fields__} | changes)


@transformer("Normalizer")
def normalizer(g: Build, step: Any, x: X) -> Tensor:
    """Divide each row by its length."""
    return normalized(g, g.tensor(x), step.norm)


def normalized(g: Build, x: Tensor, norm: str | None) -> Tensor:
    """Divide rows by their norm, "l1", "l2" or "max"; a row of zeros stays one."""
    if not norm:
        return x
    size = g.reduce("Max", g.node("Abs", x)) if norm == "max" else g.reduce(norm.upper(), x)
    return x / g.node("Where", g.node("Equal", size, 0.0), 1.0, size)
