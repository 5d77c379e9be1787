"""Which statements make the model: walk back from it, and keep what it needs (Weiser, Program Slicing, 1984).

Steps --*keep*--> the same, marked;  what a function's body needs is found in the same way, from what it gives back
"""

import ast
from collections.abc import Collection, Sequence
from typing import Final

from ketch.slicer.flow import NOTHING, Follower, Inner, Objects, Step
from ketch.slicer.scope import SETTINGS, STREAMS, Scope

CONTROL: Final = (ast.Break, ast.Continue, ast.Return, ast.Raise)


class Cut:
    """The cut through one notebook."""

    def __init__(self, scope: Scope, steps: Sequence[Step], *, seeded: bool, tight: bool) -> None:
        self.scope, self.steps, self.tight = scope, steps, tight
        self.ignored = frozenset() if seeded else frozenset(STREAMS)
        self.follower = Follower(scope)
        self.follower.run(steps)

    def keep(self, needed: Collection[str], until: int) -> set[str]:
        """Mark what makes `needed` among the steps before `until`; give the names that nothing makes."""
        return self._block(self.steps[:until], {*needed, SETTINGS}, NOTHING)

    def _block(self, steps: Sequence[Step], needed: set[str], always: Objects, *, control: bool = False) -> set[str]:
        for step in reversed(steps):
            needed = self._step(step, needed, always, control=control)
        return needed

    def _step(self, step: Step, needed: set[str], always: Objects, *, control: bool) -> set[str]:
        if step.blocks:
            return self._compound(step, needed, always, control=control)
        if isinstance(step.node, ast.Global | ast.Nonlocal):
            step.kept = True
            return needed
        if not (
            step.kept or step.must or self._makes(step, needed, always) or (control and isinstance(step.node, CONTROL))
        ):
            return needed
        return self._taken(step, needed - (step.effect.binds - {*step.effect.changes}))

    def _taken(self, step: Step, needed: set[str]) -> set[str]:
        if not step.kept:
            step.kept = True
            if isinstance(step.node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                step.bodies = self._bodies(step.node)
        return needed | (step.effect.reads - self.ignored)

    def _makes(self, step: Step, needed: set[str], always: Objects) -> bool:
        if step.never:
            return False
        if step.effect.binds & needed:
            return True
        wanted = always.union(*(step.after.get(name, frozenset({("outside", name)})) for name in needed))
        hidden = {("outside", name) for name in self.ignored}
        if (step.changed - hidden) & wanted:
            return True
        if not self.tight and (step.perhaps - hidden) & wanted:
            step.doubt = step.doubt or ", ".join(sorted(step.effect.unknown)[:3])
            return True
        return False

    # ---- compound statements -----------------------------------------------------------------------

    def _compound(self, step: Step, needed: set[str], always: Objects, *, control: bool) -> set[str]:
        node = step.node
        after = set(needed)
        if isinstance(node, ast.For | ast.AsyncFor | ast.While):
            found = self._loop(step, after, always, control=control)
        else:
            found = self._branches(step, after, always, control=control)
        inside = [each for block in step.blocks for inner in block for each in inner.walk()]
        if not any(each.kept for each in inside) and not self._makes(step, needed, always):
            return needed
        if isinstance(node, ast.Try):  # what is left out might be what fails
            for each in inside:
                if not each.effect.shows or each.effect.binds or each.effect.changes:
                    found = self._taken(each, found)
        step.kept = True
        return found | (step.effect.reads - self.ignored)

    def _loop(self, step: Step, needed: set[str], always: Objects, *, control: bool) -> set[str]:
        after = self._block(step.blocks[1], set(needed), always, control=control) | needed
        turning = step.effect.binds if isinstance(step.node, ast.For | ast.AsyncFor) else set[str]()
        found, kept = set(after), False
        while True:
            before = after | (self._block(step.blocks[0], set(found), always, control=control or kept) - turning)
            now = any(each.kept for inner in step.blocks[0] for each in inner.walk())
            if now:
                before |= step.effect.reads - self.ignored
            if before <= found and now == kept:
                return found
            found, kept = found | before, now

    def _branches(self, step: Step, needed: set[str], always: Objects, *, control: bool) -> set[str]:
        if isinstance(step.node, ast.Try):
            for block in reversed(step.blocks):
                needed = self._block(block, set(needed), always, control=control) | needed
            return needed
        found = [self._block(block, set(needed), always, control=control) for block in step.blocks]
        return set().union(*found) if isinstance(step.node, ast.If) else found[0] - step.effect.binds

    # ---- functions ---------------------------------------------------------------------------------

    def _bodies(self, node: ast.stmt) -> list[Inner]:
        if isinstance(node, ast.ClassDef):
            return [inner for each in node.body for inner in self._bodies(each)]
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return []
        names = [each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)]
        inner = Inner(self.scope, names, node.body)
        outside = frozenset(
            each
            for part in inner.every
            for each in part.changed
            if isinstance(each, tuple) and each[0] == "outside" and each[1] not in self.ignored
        )
        for step in inner.every:
            value = step.node.value if isinstance(step.node, ast.Expr) else None
            if isinstance(value, ast.Yield | ast.YieldFrom | ast.Await):
                step.kept = True
        if inner.steps and ast.get_docstring(node, clean=False) is not None:
            inner.steps[0].kept = True
        declared = {
            name for each in inner.every if isinstance(each.node, ast.Global | ast.Nonlocal) for name in each.node.names
        }
        self._block(inner.steps, {SETTINGS} | declared, outside, control=True)
        return [inner]
