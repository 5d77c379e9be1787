"""CatBoost: its trees, and what it makes of categories: one-hot bits and statistics of the target by category.

JSON of the model --*read*--> columns of tables, statistics of combinations looked up in one list --> one TreeEnsemble

A statistic (CTR) of one category is a column of its field's table. That of several, or of a category and whether a
number is above a border, is found at a place that its digits tell: the code of each category, the bit of each number.
"""

import ast
import itertools
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ketch import extras
from ketch.compiler import NotCompiled, estimator
from ketch.compiler.boosters import above, rounded, told
from ketch.compiler.build import Build
from ketch.compiler.trees import Tree, ensemble
from ketch.compiler.values import Answers, Blocks, Column, Tensor, X

LOG: Final = frozenset({"Poisson", "Tweedie"})
MIX, WORD, EMPTY = 0x4906BA494954CB65, 2**64 - 1, 2**64 - 1  # of CatBoost's hash of several values
MOST_PLACES: Final = 2_000_000  # combinations of categories, over all statistics
UNSEEN: Final = None  # the hash of a value that the model does not know

Token = tuple[str, *tuple[int, ...]]  # ("float", place), ("code", category), ("hot", category, hash), ("ctr", place)


@estimator("CatBoost", "CatBoostClassifier", "CatBoostRegressor", root="catboost")
def categorical(g: Build, model: Any, x: X) -> Answers:
    """Lower to the sum of all trees and the link of the loss; Prokhorenkova and others 2018."""
    known = told(model)
    kept = _kept(model)
    scale, bias = kept["scale_and_bias"]
    sums = _added(g, kept, x) * float(scale) + g.np.array(bias, dtype=float)[None, :]
    loss = known.origin["objective"]
    if known.task == "regression":
        logged = loss in LOG and hasattr(model, "_estimator_type")  # of what is no estimator the sums are asked
        return Answers(values=g.linked("exp", sums) if logged else sums)
    if loss == "MultiClassOneVsAll":
        return Answers(probabilities=g.linked("each", sums), scores=sums)
    if sums.width > 1:
        return Answers(probabilities=g.linked("softmax", sums), scores=sums)
    moved = above(g, sums, math.log(known.cut / (1 - known.cut))) if known.cut not in {0.0, 0.5, 1.0} else None
    return Answers(probabilities=g.linked("sigmoid", sums), scores=sums, labels=moved)


def _kept(model: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:  # CatBoost writes JSON to a path only
        path = Path(folder, "model.json")
        model.save_model(str(path), format="json")
        found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def _added(g: Build, kept: Mapping[str, Any], x: X) -> Tensor:
    grown = kept.get("oblivious_trees") or kept["trees"]
    read = _even_tree if "oblivious_trees" in kept else _uneven_tree
    encoding = Encoding(g, kept, x, dict.fromkeys(itertools.chain.from_iterable(map(_splits, grown))))
    trees = [read(g.np, each, encoding.columns) for each in grown]
    outputs = len(kept["scale_and_bias"][1])
    return ensemble(g, encoding.tensor(), trees, [0] * len(trees), outputs)


# ---- trees -----------------------------------------------------------------------------------------


def _splits(tree: Mapping[str, Any]) -> Iterator[int]:
    if "leaf_values" in tree:
        yield from (each["split_index"] for each in tree["splits"] or ())
    elif "split" in tree:
        yield tree["split"]["split_index"]
        yield from _splits(tree["left"])
        yield from _splits(tree["right"])


def _even_tree(np: Any, kept: Mapping[str, Any], columns: Mapping[int, tuple[int, float]]) -> Tree:
    """Read a tree that asks the same at each node of a level; the first split is the lowest bit of a leaf's place."""
    asked = [columns[each["split_index"]] for each in reversed(kept["splits"] or ())]
    ends = 2 ** len(asked)
    inner = np.arange(2 * ends - 1) < ends - 1
    levels = np.repeat(np.arange(len(asked) + 1), 2 ** np.arange(len(asked) + 1))
    feature = np.array([*(column for column, _ in asked), 0])[levels]
    threshold = np.array([*(border for _, border in asked), 0.0])[levels]
    left = np.where(inner, 2 * np.arange(2 * ends - 1) + 1, -1)
    worth = np.array(kept["leaf_values"], dtype=float).reshape(ends, -1)
    worth = np.concatenate([np.zeros((ends - 1, worth.shape[1])), worth])
    return Tree(left, np.where(inner, left + 1, -1), feature, threshold, inner, worth)


def _uneven_tree(np: Any, kept: Mapping[str, Any], columns: Mapping[int, tuple[int, float]]) -> Tree:
    nodes: list[Mapping[str, Any]] = [kept]
    left, right = [], []
    for node in nodes:
        left.append(len(nodes) if "split" in node else -1)
        right.append(len(nodes) + 1 if "split" in node else -1)
        nodes += [node["left"], node["right"]] if "split" in node else []
    asked = [columns[node["split"]["split_index"]] if "split" in node else (0, 0.0) for node in nodes]
    empty = 0.0 * np.array(next(node["value"] for node in nodes if "value" in node), dtype=float)
    worth = np.array([np.ravel(node.get("value", empty)) for node in nodes], dtype=float)
    feature, threshold = (np.array(each) for each in zip(*asked, strict=True))
    return Tree(np.array(left), np.array(right), feature, threshold, np.array(left) >= 0, worth)


# ---- columns ---------------------------------------------------------------------------------------


class Encoding:
    """The columns that splits ask: numbers, then each category's table, then statistics of combinations.

    `columns` tells for the place of each split used the column and the border that it has to be above.
    """

    def __init__(self, g: Build, kept: Mapping[str, Any], x: X, used: Sequence[int] | Mapping[int, None]) -> None:
        info = kept["features_info"]
        self._g, self._x, self._data = g, x, kept.get("ctr_data") or {}
        self._floats = info.get("float_features") or []
        self._categories = info.get("categorical_features") or []
        self._statistics = info.get("ctrs") or []
        listed = list(self._listed())
        if any(place >= len(listed) for place in used):
            raise NotCompiled("it takes texts or embeddings")
        asked = {place: listed[place] for place in used}
        tokens = dict.fromkeys(token for token, _ in asked.values() if token[0] != "float")
        self._mixed = [token for token in tokens if self._is_mixed(token)]
        digits = [digit for token in self._mixed for digit in self._digits(token) if digit[0] != "bit"]
        self._own: dict[int, list[Token]] = {}
        for token in dict.fromkeys([*(token for token in tokens if token not in self._mixed), *digits]):
            self._own.setdefault(self._category(token), []).append(token)
        self._hashes = self._hashed()
        order = [*(("float", place) for place in range(len(self._floats))), *itertools.chain(*self._own.values())]
        self._place: dict[Any, int] = {token: place for place, token in enumerate([*order, *self._mixed])}
        self.columns = {split: (self._place[token], border) for split, (token, border) in asked.items()}

    def _listed(self) -> Iterator[tuple[Any, float]]:
        """List all splits in CatBoost's order, each as what it asks and a border."""
        for place, each in enumerate(self._floats):
            yield from ((("float", place), border) for border in each.get("borders") or ())
        for place, each in enumerate(self._categories):
            yield from ((("hot", place, value), 0.5) for value in each.get("values") or ())
        for place, each in enumerate(self._statistics):
            yield from ((("ctr", place), border) for border in each["borders"])

    def _is_mixed(self, token: Any) -> bool:
        return token[0] == "ctr" and (len(digits := self._digits(token)) > 1 or digits[0][0] != "code")

    def _category(self, token: Any) -> int:
        return int((self._digits(token)[0] if token[0] == "ctr" else token)[1])

    def _digits(self, token: Any) -> list[Any]:
        """List what a statistic depends on, in the order in which CatBoost hashes it."""
        return [_digit(each) for each in self._statistics[token[1]]["elements"]]

    # ---- hashes --------------------------------------------------------------------------------

    def _hashed(self) -> dict[int, list[int | None]]:
        """Give the hashes of the values of each category that is asked for, the last for what is unknown."""
        columns = {place: self._column(place) for place in self._own}
        known = _hashes({str(key) for column in columns.values() for key in column.keys or ()}) if columns else {}
        found: dict[int, list[int | None]] = {}
        for place, column in columns.items():
            own = [known[str(key)] for key in column.keys or ()]
            if not set(self._categories[place].get("values") or ()) <= set(own):
                raise _lacking(column.field)
            found[place] = [*own, *([UNSEEN] if column.unknown else [])]
        return found

    def _column(self, place: int) -> Column:
        at = self._categories[place]["flat_feature_index"]
        if not isinstance(self._x, Blocks) or self._x.width != len(self._x.columns):
            raise NotCompiled("its categories stand behind a step that mixes columns")
        column: Column = self._x.columns[at]
        if not column.keys or not all(isinstance(key, str) for key in column.keys):
            raise NotCompiled(f"the values of {column.field} are not known, for CatBoost keeps none: pack with --data")
        return column

    # ---- values --------------------------------------------------------------------------------

    def _values(self, token: Any) -> Any:
        """Give what each value of a category stands for."""
        np, hashes = self._g.np, self._hashes[self._category(token)]
        if token[0] == "code":
            return np.arange(float(len(hashes)))
        if token[0] == "hot":
            return np.array([float(each == token[2]) for each in hashes])
        return self._worths(token)

    def _worths(self, token: Any) -> Any:
        """Give the statistic of each combination of digits, the last digit running fastest."""
        np, kept = self._g.np, self._statistics[token[1]]
        data = self._data[kept["identifier"]]
        stride = int(data["hash_stride"])
        known = {
            int(data["hash_map"][at]): np.array(data["hash_map"][at + 1 : at + stride], dtype=float)
            for at in range(0, len(data["hash_map"]), stride)
        }
        known.pop(EMPTY, None)
        hashes = self._combined(token)
        if not known.keys() <= set(hashes):
            raise _lacking("the categories")
        absent = np.zeros(stride - 1)
        pairs = [_counted(kept, data, known.get(each, absent)) for each in hashes]  # type: ignore[arg-type]
        hits, whole = np.array(pairs, dtype="float32").T
        number = {name: np.float32(kept[name]) for name in ("prior_numerator", "prior_denomerator", "shift", "scale")}
        share = (hits + number["prior_numerator"]) / (whole + number["prior_denomerator"])
        return ((share + number["shift"]) * number["scale"]).astype(float)

    def _combined(self, token: Any) -> list[int | None]:
        made: list[int | None] = [0]
        for digit in self._digits(token):
            each = self._hashes[digit[1]] if digit[0] == "code" else [0, 1]
            if len(made) * len(each) > MOST_PLACES:
                raise NotCompiled("it has too many combinations of categories")
            made = [_mixed(one, other) for one in made for other in each]
        return made

    def _radix(self, digit: Any) -> int:
        return len(self._hashes[digit[1]]) if digit[0] == "code" else 2

    # ---- the tensor ----------------------------------------------------------------------------

    def tensor(self) -> Tensor:
        """Make all columns that are asked."""
        g = self._g
        own = [self._table(place, tokens) for place, tokens in self._own.items()]
        places = [each["flat_feature_index"] for each in self._floats]
        blocks = g.take(self._x, places)
        if isinstance(blocks, Blocks):
            blocks = Blocks((*blocks.columns, *own))
            self._noted(blocks)
        x = self._absent(rounded(g, blocks))
        return g.tensor(g.concat([x, self._looked_up(x)])) if self._mixed else x

    def _table(self, place: int, tokens: Sequence[Any]) -> Column:
        values = self._g.np.stack([self._values(token) for token in tokens], axis=1)
        return replace(self._column(place), values=values, missing=False)

    def _noted(self, blocks: Blocks) -> None:
        """Note where numbers are split, also inside combinations."""
        found = [(token[1], border) for token, border in self._listed() if token[0] == "float"]
        if found:
            places, borders = (self._g.np.array(each) for each in zip(*found, strict=True))
            self._g.splits(blocks, places, borders)

    def _absent(self, x: Tensor) -> Tensor:
        """Put what is missing above all borders, where the model was told to."""
        high = self._g.np.zeros((1, x.width), dtype=bool)
        for place, each in enumerate(self._floats):
            high[0, place] = each["nan_value_treatment"] == "AsTrue"
        if not high.any():
            return x
        missing = self._g.node("And", self._g.node("IsNaN", x), high)
        return self._g.node("Where", missing, float("inf"), x)

    def _looked_up(self, x: Tensor) -> Tensor:
        """Look up the statistics of combinations in one list, each at the place that its digits tell."""
        g, np = self._g, self._g.np
        digits = list(dict.fromkeys(digit for token in self._mixed for digit in self._digits(token)))
        digits.sort(key=lambda digit: digit[0] == "bit")
        steps = np.zeros((len(digits), len(self._mixed)))
        starts, worths = [0], []
        for at, token in enumerate(self._mixed):
            step = 1
            for digit in reversed(self._digits(token)):
                steps[digits.index(digit), at] = step
                step *= self._radix(digit)
            if starts[-1] + step > MOST_PLACES:
                raise NotCompiled("it has too many combinations of categories")
            worths.append(self._worths(token))
            starts.append(starts[-1] + step)
        places = g.cast(self._asked(x, digits) @ steps + np.array(starts[:-1], dtype=float)[None, :], "int64")
        return g.node("Gather", np.concatenate(worths), places, axis=0, width=len(self._mixed))

    def _asked(self, x: Tensor, digits: Sequence[Any]) -> Tensor:
        g = self._g
        bits = [digit for digit in digits if digit[0] == "bit"]
        rest = [self._place[digit] for digit in digits if digit[0] != "bit"]
        parts = [g.tensor(g.take(x, rest))] if rest else []
        if bits:
            borders = g.np.array([[border for _, _, border in bits]])
            raised = g.node("Greater", g.take(x, [place for _, place, _ in bits]), borders)
            parts.append(g.cast(raised, "double"))
        return g.tensor(g.concat(parts))


def _digit(element: Mapping[str, Any]) -> Any:
    kind = element["combination_element"]
    if kind == "cat_feature_value":
        return ("code", element["cat_feature_index"])
    if kind == "cat_feature_exact_value":
        return ("hot", element["cat_feature_index"], element["value"])
    return ("bit", element["float_feature_index"], element["border"])


def _counted(kept: Mapping[str, Any], data: Mapping[str, Any], counts: Any) -> tuple[float, float]:
    """Give what a statistic counts, and the whole that it is a share of."""
    kind, border = kept["ctr_type"], kept["target_border_idx"]
    if kind in {"Counter", "FeatureFreq"}:
        return counts[0], data["counter_denominator"]
    if kind in {"BinarizedTargetMeanValue", "FloatTargetMeanValue"}:
        return counts[0], counts[1]
    return (counts[border] if kind == "Buckets" else counts[border + 1 :].sum()), counts.sum()


def _mixed(one: int | None, other: int | None) -> int | None:
    if one is UNSEEN or other is UNSEEN:
        return UNSEEN
    return MIX * ((one + MIX * (other & WORD)) & WORD) & WORD


def _lacking(what: str) -> NotCompiled:
    return NotCompiled(f"the sample lacks values of {what} that the model knows: pack with all rows of its training")


def _hashes(values: set[str]) -> dict[str, int]:
    """Ask CatBoost how it hashes texts; it tells only beside a model, so the smallest one is made."""
    library = extras.load("catboost")
    listed = sorted({*values, "", "a"})
    pool = library.Pool([[each] for each in listed], [at % 2 for at in range(len(listed))], cat_features=[0])
    model = library.CatBoostRegressor(
        iterations=1, depth=1, one_hot_max_size=2, thread_count=1, allow_writing_files=False, verbose=False
    ).fit(pool)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.py")
        model.save_model(str(path), format="python", pool=pool)
        told = path.read_text("utf-8").partition("\ncat_features_hashes = ")[2].partition("\n}\n")[0]
    found = {
        text.encode("latin-1").decode("utf-8", "replace"): code for text, code in ast.literal_eval(told + "}").items()
    }
    if not values <= found.keys():
        raise NotCompiled("CatBoost does not tell how it hashes its categories")
    return found
