"""What a notebook measures of its final model: the numbers that it prints become what `evaluate()` gives back."""

import ast
from collections.abc import Iterator
from typing import Final

from ketch.slicer.cut import Cut
from ketch.slicer.flow import Step
from ketch.slicer.goal import Goal, fitted_in
from ketch.slicer.layout import Metric
from ketch.slicer.scope import Scope

MOST: Final = 8
NOT_NUMBERS: Final = tuple(
    "curve report matrix display scorer pairwise silhouette_samples plot_ precision_recall_fscore".split()
)


SEVERAL: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda, ast.List, ast.Dict, ast.Set)


def _plain(node: ast.AST) -> Iterator[ast.AST]:
    """Give all nodes outside lists and the like: what stands there is one value, known where the statement is."""
    if not isinstance(node, SEVERAL):
        yield node
        for each in ast.iter_child_nodes(node):
            yield from _plain(each)


class Measures:
    """The statements that measure the model, with what they need, and what `evaluate()` gives back of each."""

    def __init__(self, cut: Cut, goal: Goal, scope: Scope) -> None:
        self.cut, self.goal, self.scope = cut, goal, scope
        self.metrics: dict[int, list[Metric]] = {}
        self.places: list[int] = []
        self.final = {place for place, step in enumerate(cut.steps[: goal.until]) if step.kept and self._fits(step)}
        names: set[str] = set()
        for place, step in enumerate(cut.steps):
            calls = self._measuring(step)
            if calls and self.final and place > max(self.final) and len(names) < MOST and self._take(place):
                self.metrics[id(step)] = self._metrics(step, calls, names)
        self.places.sort()

    def _fits(self, step: Step) -> bool:
        return any(fitted_in(each, self.scope) for each in step.walk())

    def _measuring(self, step: Step) -> list[ast.Call]:
        """Give the calls in a plain statement that give a number for a model."""
        if step.blocks or not isinstance(step.node, ast.Expr | ast.Assign):
            return []
        found = []
        for node in _plain(step.node):
            if isinstance(node, ast.Call):
                dotted = self.scope.dotted(node.func)
                last = dotted.rpartition(".")[2]
                if (
                    dotted.startswith("sklearn.metrics.") and not any(each in last.lower() for each in NOT_NUMBERS)
                ) or (isinstance(node.func, ast.Attribute) and node.func.attr == "score" and not dotted):
                    found.append(node)
        return found

    def _take(self, place: int) -> bool:
        """Keep a statement and what it needs, unless it measures another model or would change what stays."""
        steps = self.cut.steps
        before = {id(each) for step in steps for each in step.walk() if each.kept}
        self.cut.keep(steps[place].effect.reads, place)
        new = [at for at, step in enumerate(steps[:place]) if step.kept and id(step) not in before]
        within = [
            each for step in steps if id(step) in before for each in step.walk() if each.kept and id(each) not in before
        ]
        reached = self._reaches_model(place)
        good = reached and not within and not any(self._fits(steps[at]) or at in self.goal.places for at in new)
        for step in steps:
            for each in step.walk():
                each.kept = id(each) in before
        if good:
            self.places += [at for at in [*new, place] if at not in self.places]
        return good

    def _reaches_model(self, place: int) -> bool:
        """Say whether what is measured comes from the model."""
        wanted = {*self.cut.steps[place].effect.reads}
        model: frozenset[object] = frozenset().union(
            *(self.cut.steps[self.goal.until - 1].after.get(name, frozenset()) for name in self.goal.names)
        )
        for step in reversed(self.cut.steps[:place]):
            now = frozenset().union(*(step.after.get(name, frozenset()) for name in wanted))
            if now & model:
                return True
            for each in step.walk():
                if each.effect.binds & wanted:
                    wanted |= each.effect.reads
        return False

    def _metrics(self, step: Step, calls: list[ast.Call], names: set[str]) -> list[Metric]:
        node = step.node
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            names.add(name)
            return [Metric(name, ast.unparse(node.value), name)]
        found = []
        for call in calls:
            last = self.scope.dotted(call.func).rpartition(".")[2] or "score"
            name = base = last.removesuffix("_score")
            number = 2
            while name in names:
                name, number = f"{base}_{number}", number + 1
            names.add(name)
            found.append(Metric(name, ast.unparse(call)))
        return found
