"""Asking the model itself: `shap` chooses the rows to be asked, mixed of the row's own values and the reference's.

All combinations of up to `EXACT` fields that differ, else `ORDERS` orders forth and back; either adds up.
"""

import threading
import warnings
from collections.abc import Sequence
from typing import Any, Final

from ketch import extras
from ketch.explain import REFERENCE_ROWS, Probe, Reading, View, group_of, probe, seen
from ketch.predict import Predictor, Rows
from ketch.program import GRAPH_MEMBER, Graph
from ketch.schema import Answer, Columns

EXACT: Final = 8
ORDERS: Final = 10
ALONE: Final = threading.Lock()


class Sampled:
    """What `shap` finds by asking; the rows it sees are places in lists of values, never values."""

    most_rows = 10

    def __init__(self, ask: Probe, view: View, names: Sequence[str], shown: Columns) -> None:
        self._np: Any = extras.load("numpy")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the plotting libraries that it brings
            self._shap: Any = extras.load("shap")
        self.view = view
        self._ask, self._names, self._shown = ask, names, shown

    def __call__(self, columns: Columns, n: int, readings: Sequence[Reading]) -> list[tuple[float, list[float]]]:
        """Give base and contributions for each row."""
        return [self._one({name: columns[name][row] for name in self._names}, readings[row]) for row in range(n)]

    def _one(self, row: dict[str, object], read: Any) -> tuple[float, list[float]]:
        np, names = self._np, self._names
        pools = [[row[name], *self._shown[name]] for name in names]
        places = np.array([_firsts(pool) for pool in pools])  # (fields, 1 + rows); 0 is the row's own
        players = np.flatnonzero(places.any(axis=1))
        others = places[players, 1:].T.astype(float)

        def scores(asked: Any) -> Any:
            rows, which = np.unique(asked, axis=0, return_inverse=True)
            mixed = {name: [row[name]] * len(rows) for name in names}
            for at, player in enumerate(players.tolist()):
                pool = pools[player]
                mixed[names[player]] = [pool[place] for place in rows[:, at].astype(int).tolist()]
            return np.array([read(each) for each in self._ask(mixed, len(rows))])[which.reshape(-1)]

        worth = np.zeros(len(names))
        if len(players) < 2:
            base = float(scores(others).mean())
            worth[players] = float(scores(np.zeros((1, len(players))))[0]) - base
            return base, worth.tolist()
        found = self._asked(scores, others)
        worth[players] = found.values[0]
        return float(found.base_values[0]), worth.tolist()

    def _asked(self, scores: Any, others: Any) -> Any:
        np, count = self._np, others.shape[1]

        def masker(mask: Any, x: Any) -> Any:
            return (np.where(mask, x, others),)

        own = np.zeros((1, count))
        with ALONE, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chance = np.random.get_state()  # which shap sows anew, for everybody
            try:
                if count <= EXACT:
                    return self._shap.ExactExplainer(scores, masker)(own, max_evals=2**count, silent=True)
                asked = ORDERS * (2 * count + 1)
                explain = self._shap.PermutationExplainer(scores, masker, seed=0)
                return explain(own, max_evals=asked, batch_size=asked, silent=True)
            finally:
                np.random.set_state(chance)


def made(predictor: Predictor, place: int, shown: Columns, program: Graph | None = None) -> Sampled:
    """Prepare to ask a model: the sums before the link where there is a graph, else what it answers.

    Raises:
        NotInstalled: shap is missing.
    """
    contract = predictor.contract
    names = [each.name for each in contract.fields]
    several = bool(contract.answer.parts)
    answer = contract.answer.parts[place] if several else contract.answer
    if program is not None:
        role, tensor, link = group_of(program, answer, place)
        if role != "labels":
            ask = probe(program, predictor.bundle.files[GRAPH_MEMBER], tensor, contract.fields)
            return Sampled(ask, View(role, len(ask(shown, REFERENCE_ROWS)[0]), link), names, shown)
    return Sampled(*_answers(predictor, answer, place, several, shown), names, shown)


def _answers(predictor: Predictor, answer: Answer, place: int, several: bool, shown: Columns) -> tuple[Probe, View]:
    def ask(columns: Columns, n: int) -> Sequence[Any]:
        return seen(predictor.ask(Rows(columns, n)), answer, place, several=several)[1]

    view, _ = seen(predictor.ask(Rows(shown, REFERENCE_ROWS)), answer, place, several=several)
    return ask, view


def _firsts(pool: Sequence[object]) -> list[int]:
    """Give the place of the first value that is the same; True and 1 are not."""
    known: dict[Any, int] = {}
    return [known.setdefault((type(value), str(value)), place) for place, value in enumerate(pool)]
