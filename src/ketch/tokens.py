"""Texts as counted and weighed tokens, in plain Python, as scikit-learn's vectorizers make them.

text --*cut*--> tokens --*count*--> {place: count} --*weigh*--> [(place, weight)]
"""

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from ketch import extras


class Text(msgspec.Struct, frozen=True, tag="text"):
    """A text, cut into tokens that are counted and weighed, as scikit-learn's vectorizers do."""

    field: str
    width: int
    analyzer: str = "word"
    pattern: str = r"(?u)\b\w\w+\b"
    ngrams: tuple[int, int] = (1, 1)
    lowercase: bool = True
    accents: str = ""  # "ascii" or "unicode": how they are stripped
    stop_words: tuple[str, ...] = ()
    vocabulary: dict[str, int] | None = None  # without one, tokens are hashed
    signed: bool = False  # hashed tokens carry a sign
    binary: bool = False
    sublinear: bool = False
    idf: tuple[float, ...] | None = None
    norm: str = ""


def tokenizer(part: Text) -> Callable[[str], list[tuple[int, float]]]:
    """Make what turns a text into places and weights; no token twice.

    Order and rounding are those of scikit-learn's `CountVectorizer`, `TfidfTransformer` and `HashingVectorizer`.
    """
    cut, count, weigh = _analyzer(part), _counter(part), _weigher(part)
    return lambda text: weigh(count(cut(text)))


def _analyzer(part: Text) -> Callable[[str], Sequence[str]]:
    strip, tokens = ACCENTS[part.accents], _tokens(part)

    def cut(text: str) -> Sequence[str]:
        return tokens(strip(text.lower() if part.lowercase else text))

    return cut


def _tokens(part: Text) -> Callable[[str], Sequence[str]]:
    least, most = part.ngrams
    lengths, blanks = range(least, most + 1), re.compile(r"\s\s+")
    if part.analyzer == "char":
        return lambda text: [gram for whole in (blanks.sub(" ", text),) for n in lengths for gram in _slices(whole, n)]
    if part.analyzer == "char_wb":
        return lambda text: [gram for word in text.split() for gram in _inside(f" {word} ", lengths)]
    found, stops = re.compile(part.pattern).findall, frozenset(part.stop_words)

    def words(text: str) -> Sequence[str]:
        tokens: list[str] = [word for word in found(text) if word not in stops] if stops else found(text)
        return tokens if most == 1 else [" ".join(gram) for n in lengths for gram in _slices(tokens, n)]

    return words


def _slices(whole: Any, n: int) -> Iterator[Any]:
    return (whole[at : at + n] for at in range(len(whole) - n + 1))


def _inside(word: str, lengths: Iterable[int]) -> Iterator[str]:
    for n in lengths:
        if n >= len(word):  # a short word counts once
            yield word
            return
        yield from _slices(word, n)


def _counter(part: Text) -> Callable[[Sequence[str]], dict[int, float]]:
    if part.vocabulary is None:
        return _hasher(part.width, part.signed)
    place_of = part.vocabulary.get

    def count(tokens: Sequence[str]) -> dict[int, float]:
        counts: dict[int, float] = {}
        for token in tokens:
            place = place_of(token)
            if place is not None:
                counts[place] = counts.get(place, 0.0) + 1.0
        return counts

    return count


def _hasher(width: int, signed: bool) -> Callable[[Sequence[str]], dict[int, float]]:
    """Count hashed tokens; Weinberger et al. 2009."""
    murmur: Callable[[bytes], int] = extras.load("mmh3").hash

    def count(tokens: Sequence[str]) -> dict[int, float]:
        counts: dict[int, float] = {}
        for token in tokens:
            found = murmur(token.encode())
            place = abs(found) % width
            counts[place] = counts.get(place, 0.0) + (-1.0 if signed and found < 0 else 1.0)
        return counts

    return count


def _weigher(part: Text) -> Callable[[dict[int, float]], list[tuple[int, float]]]:
    idf = part.idf
    size = NORMS[part.norm]

    def weigh(counts: dict[int, float]) -> list[tuple[int, float]]:
        if part.binary:
            counts = dict.fromkeys(counts, 1.0)
        if part.sublinear:
            counts = {place: math.log(count) + 1.0 for place, count in counts.items()}
        if idf is not None:
            counts = {place: count * idf[place] for place, count in counts.items()}
        whole = size(counts.values())
        if whole in (0.0, 1.0):
            return list(counts.items())
        return [(place, count / whole) for place, count in counts.items()]

    return weigh


def _plain_letters(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def _without_marks(text: str) -> str:
    if text.isascii():
        return text
    return "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))


ACCENTS: Final[Mapping[str, Callable[[str], str]]] = {"": str, "ascii": _plain_letters, "unicode": _without_marks}
NORMS: Final[Mapping[str, Callable[[Iterable[float]], float]]] = {
    "": lambda values: 1.0,
    "l1": lambda values: sum(abs(value) for value in values),
    "l2": lambda values: math.sqrt(sum(value * value for value in values)),
}


def require_sense(part: Text) -> None:
    """Hold a text's settings against each other, so that a bundle fails when it is opened.

    Raises:
        ValueError: they do not fit.
    """
    places = part.vocabulary.values() if part.vocabulary is not None else ()
    try:
        re.compile(part.pattern)
    except re.error as error:
        raise ValueError(f"the tokens of {part.field[:60]!r} have no pattern: {error}") from None
    known = part.analyzer in ANALYZERS and part.accents in ACCENTS and part.norm in NORMS
    inside = part.width > 0 and all(0 <= place < part.width for place in places)
    if not known or not inside or not 0 < part.ngrams[0] <= part.ngrams[1]:
        raise ValueError(f"the text {part.field[:60]!r} cannot be cut")
    if part.idf is not None and len(part.idf) != part.width:
        raise ValueError(f"the frequencies of {part.field[:60]!r} do not fit")


ANALYZERS: Final = frozenset({"word", "char", "char_wb"})
