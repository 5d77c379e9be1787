"""The script as a careful engineer would have written it; in the notebook's order where its functions need that.

kept Statements --*arranged*--> Layout --*lifted*--> with parameters --*written*--> text
"""

import ast
import builtins
import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ketch.slicer import libraries
from ketch.slicer.flow import Step
from ketch.slicer.goal import Goal, fits
from ketch.slicer.notebook import Statement
from ketch.slicer.scope import FILES, Scope
from ketch.slicer.text import filled, pruned

LIFTED: Final = frozenset(
    """random_state seed C n_splits test_size max_iter n_estimators max_depth learning_rate alpha n_neighbors n_clusters
    min_samples_leaf min_samples_split num_boost_round n_components contamination max_features min_df""".split()
)
NAMES: Final = (("load_data", "read_data"), ("train", "train_model"), ("evaluate", "evaluate_model"))
PLACED: Final = frozenset({"globals", "locals", "exec", "eval", "vars"})
ELSEWHERE: Final = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
READS: Final = frozenset(
    """read_csv read_excel read_parquet read_json read_table read_feather read_pickle loadtxt genfromtxt open load
    read_fwf read_html read_orc read_stata scan_csv""".split()
)


@dataclass
class Kept:
    """A statement that stays, and the words that stood above it in the notebook."""

    statement: Statement
    step: Step
    words: tuple[str, ...] = ()
    place: int = 0


class Metric(NamedTuple):
    """A number that measures the model: what it is called, how it is computed, the variable that holds it."""

    name: str
    value: str
    variable: str = ""


@dataclass
class Parameter:
    """What a run may set: its name in the code, its option, its default as code, and what it is."""

    name: str
    default: str
    kind: str
    help: str = ""
    named: bool = False  # the notebook has a constant of this name
    nodes: list[ast.expr] = field(default_factory=list)

    @property
    def option(self) -> str:
        """Give its option."""
        return "--" + self.name.strip("_").replace("_", "-")


@dataclass
class Layout:
    """The kept statements by where they go."""

    imports: list[Kept] = field(default_factory=list)
    constants: list[Kept] = field(default_factory=list)
    definitions: list[Kept] = field(default_factory=list)
    load: list[Kept] = field(default_factory=list)
    train: list[Kept] = field(default_factory=list)
    save: list[Kept] = field(default_factory=list)
    evaluate: list[Kept] = field(default_factory=list)
    straight: str = ""  # why it cannot be cut into functions

    @property
    def body(self) -> list[Kept]:
        """Give what runs, in order."""
        return [*self.load, *self.train, *self.save]


def arranged(kept: Sequence[Kept], evaluation: Sequence[Kept], goal: Goal, scope: Scope) -> Layout:
    """Say where each statement goes."""
    layout = Layout(evaluate=[*evaluation])
    changed = {name for each in kept for part in each.step.walk() for name in part.effect.changes}
    bound: dict[str, int] = {}
    for each in kept:
        for part in each.step.walk():
            for name in part.effect.binds:
                bound[name] = bound.get(name, 0) + 1
    rest: list[Kept] = []
    above = _for_imports(kept, scope)
    for each in [*kept, *evaluation]:
        node = each.step.node
        if each.place in above or (isinstance(node, ast.Import | ast.ImportFrom) and not each.step.effect.reads):
            layout.imports.append(each)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            layout.definitions.append(each)
        elif each in evaluation:
            continue
        elif (name := constant_of(node)) and bound[name] == 1 and (name not in changed or _is_plain(node)):
            layout.constants.append(each)
        else:
            rest.append(each)
    layout.evaluate = [each for each in evaluation if not isinstance(each.step.node, ELSEWHERE)]
    begin = next((place for place, each in enumerate(rest) if _trains(each.step, scope)), len(rest))
    late = _only_for_saving(rest, goal)
    for place, each in enumerate(rest):
        (layout.save if each.place in late else layout.load if place < begin else layout.train).append(each)
    layout.straight = _why_straight(layout, bound)
    return layout


def _for_imports(kept: Sequence[Kept], scope: Scope) -> set[int]:
    """Find what says where modules are found, with what it needs: that must stand above the imports after it."""
    found, wanted, imports = set[int](), set[str](), False
    for each in reversed(kept):
        imports |= isinstance(each.step.node, ast.Import | ast.ImportFrom)
        parts = [*each.step.walk()]
        nodes = ast.walk(each.step.node)
        path = any(isinstance(node, ast.Attribute) and scope.dotted(node) == "sys.path" for node in nodes)
        if (imports and path) or any(part.effect.binds & wanted for part in parts):
            found.add(each.place)
            wanted |= {name for part in parts for name in part.effect.reads}
    return found


def _only_for_saving(rest: Sequence[Kept], goal: Goal) -> set[int]:
    """Find the statements that save, and those that nothing else needs, such as one that opens the file."""
    found, wanted = set[int](), set[str]()
    for each in reversed(rest):
        parts = [*each.step.walk()]
        made = {name for part in parts for name in part.effect.binds}
        plain = isinstance(each.step.node, ast.Assign) and all(
            name.startswith(FILES) for name in each.step.effect.changes
        )
        if each.place in goal.places or (plain and made and not made & wanted and not made & {*goal.names} and found):
            found.add(each.place)
        else:
            wanted |= {name for part in parts for name in part.effect.reads}
    return found


def constant_of(node: ast.stmt) -> str:
    """Name what a plain constant is assigned to, empty where a statement is something else."""
    if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
        return ""
    try:
        ast.literal_eval(node.value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ""
    return node.targets[0].id


def _is_plain(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)


def _trains(step: Step, scope: Scope) -> bool:
    for node in ast.walk(step.node):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and fits(node.func.id, scope):
                return True
            if isinstance(node.func, ast.Attribute) and node.func.attr in {"fit", "fit_transform", "partial_fit"}:
                return True
            dotted = scope.dotted(node.func)
            if dotted.startswith(libraries.LEARNING) and dotted.rpartition(".")[2][:1].isupper():
                return True
    return False


def _why_straight(layout: Layout, bound: Mapping[str, int]) -> str:
    """Say why functions cannot be made of the statements: those of the notebook read what would be inside them."""
    moved = {name for each in layout.body for part in each.step.walk() for name in part.effect.binds}
    known = {name for each in [*layout.imports, *layout.definitions] for name in each.step.effect.binds}
    if moved & known:
        return f"{min(moved & known)} is made anew"
    for each in layout.definitions:
        (name,) = each.step.effect.binds
        if outside := each.step.reads_when_called & (moved - known):
            return f"{name} reads {min(outside)}, which is made outside it"
        if each.step.effect.reads & moved:
            return f"{name} needs {min(each.step.effect.reads & moved)} when it is defined"
        if bound.get(name, 0) > 1:
            return f"{name} is defined more than once"
    return next(filter(None, (_bound_to_place(node) for each in layout.body for node in ast.walk(each.step.node))), "")


def _bound_to_place(node: ast.AST) -> str:
    """Say what a part of a statement does that it cannot do within a function."""
    if isinstance(node, ast.Await | ast.Global):
        return "it changes globals, or awaits"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PLACED:
        return f"it calls {node.func.id}()"
    if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
        return "it imports * within a block"
    return ""


# ---- what a run may set ----------------------------------------------------------------------------------


def lifted(layout: Layout, scope: Scope, taken: set[str]) -> list[Parameter]:
    """Find the values that a run may want to set: paths, seeds, numbers of models, and named constants."""
    found: dict[str, Parameter] = {}
    used_within = {name for each in layout.definitions for name in each.step.reads_when_called}
    for each in [*layout.constants]:
        node = each.step.node
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Constant | ast.UnaryOp):
            continue
        name = constant_of(node)
        value = ast.literal_eval(node.value)
        if (
            name in used_within
            or not isinstance(value, int | float | str)
            or isinstance(value, bool)
            or "\n" in str(value)
        ):
            continue
        beside = re.search(r"#\s*(\S.*)", each.statement.text) if "#" not in str(value) else None
        said = beside[1].replace("\\", "/").replace('"', "'").replace("%", "%%").strip() if beside else ""
        found[name] = Parameter(name, ast.unparse(node.value), type(value).__name__, said, named=True)
    values: dict[str, list[ast.Constant]] = {}
    for each in [*layout.body, *layout.evaluate]:
        for part in ast.walk(each.step.node):
            if isinstance(part, ast.Call):
                _collect(part, scope, values)
    for name, nodes in values.items():
        if len({ast.unparse(node) for node in nodes}) > 1 or name in found:
            continue
        own = _free(name.lower() if name != "C" else "C", taken)
        taken.add(own)
        what = "Where the data is read from." if name.startswith("data") else ""
        found[own] = Parameter(own, ast.unparse(nodes[0]), type(nodes[0].value).__name__, what, nodes=[*nodes])
    return list(found.values())


def _collect(node: ast.Call, scope: Scope, values: dict[str, list[ast.Constant]]) -> None:
    """Note the literals of one call that a run may want to set."""
    dotted = scope.dotted(node.func)
    last = dotted.rpartition(".")[2] or (node.func.id if isinstance(node.func, ast.Name) else "")
    first = node.args[0] if node.args else None
    if (
        last in READS
        and isinstance(first, ast.Constant)
        and isinstance(first.value, str)
        and first.value not in scope.written
    ):
        mode = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else "r"
        if last != "open" or "r" in str(mode):
            known = [name for name in values if name.startswith("data")]
            same = next((name for name in known if values[name][0].value == first.value), "")
            values.setdefault(same or ("data" if not known else f"data_{len(known) + 1}"), []).append(first)
    if dotted.startswith(libraries.LEARNING):
        for word in node.keywords:
            literal = word.value
            if word.arg in LIFTED and isinstance(literal, ast.Constant) and type(literal.value) in {int, float}:
                values.setdefault(word.arg, []).append(literal)


def _free(name: str, taken: set[str]) -> str:
    """Give a name that nothing goes by yet."""
    name = re.sub(r"\W", "_", name)
    while name in taken or keyword.iskeyword(name) or hasattr(builtins, name):
        name += "_"
    return name


# ---- the text ----------------------------------------------------------------------------------------------


class Writer:
    """Write a script of a layout."""

    def __init__(
        self,
        layout: Layout,
        wanted: set[str],
        scope: Scope,
        *,
        head: str,
        pack: str,
        metrics: Mapping[int, Sequence[Metric]],
        seed: bool,
    ) -> None:
        self.layout, self.wanted, self.scope = layout, wanted, scope
        self.head, self.pack, self.metrics, self.seed = head, pack, metrics, seed
        self.taken = self._names()
        self.parameters = lifted(layout, scope, self.taken)
        if seed:
            name = _free("seed", self.taken)
            said = "The seed of all random numbers; the notebook has none."
            self.parameters.append(Parameter(name, "0", "int", said))
            self.seeding = [f"random.seed(options.{name})", f"numpy.random.seed(options.{name})"]
        self.said = {constant_of(each.step.node): [*each.words, *each.statement.comments] for each in layout.constants}
        self.of_node = {id(node): each for each in self.parameters for node in each.nodes}

    def _names(self) -> set[str]:
        every = [
            *self.layout.imports,
            *self.layout.constants,
            *self.layout.definitions,
            *self.layout.body,
            *self.layout.evaluate,
        ]
        nodes = [node for each in every for node in ast.walk(each.step.node)]
        found = {node.id for node in nodes if isinstance(node, ast.Name)} | {*self.scope.modules}
        return found | {*self.scope.functions, *self.scope.classes, "argparse", "ketch", "main", "options"}

    def text(self) -> str:
        """Write it."""
        return self._straight() if self.layout.straight else self._in_functions()

    def _text(self, kept: Iterable[Kept], *, options: str = "") -> list[str]:
        edits = {key: f"{options}{each.name}" for key, each in self.of_node.items()}
        lines: list[str] = []
        for each in kept:
            if each.words and lines:
                lines.append("")
            text = filled(each.statement, each.step) or pruned(each.statement, each.step, edits)
            lines += [*each.words, *each.statement.comments, text]
        return lines

    def _imports(self) -> list[str]:
        own = ["import argparse", *(["import random", "import numpy"] if self.seed else [])]
        bound = {*self.scope.modules, *self.scope.functions, *self.scope.classes, *self.scope.texts}
        if "display" in self.taken - bound:  # a notebook has it without an import
            own.append("from IPython.display import display")
        return [
            *own,
            *(line for each in self.layout.imports for line in [pruned(each.statement, each.step, {})]),
            "import ketch",
        ]

    def _in_functions(self) -> str:
        layout = self.layout
        load, train, evaluate = (self._called(*names) for names in NAMES)
        blocks = [self.head, *self._imports(), "", *self._text(self._constants()), ""]
        for each in layout.definitions:
            text = _dense(pruned(each.statement, each.step, {}))
            blocks += ["", *each.words, *each.statement.comments, text, ""]
        body: list[str] = []
        saving = self._reads([*layout.save, *layout.evaluate]) | self.wanted
        if layout.load:
            given = self._outputs(layout.load, self._reads(layout.train) | saving)
            blocks += self._function(load, layout.load, [], given, "Read and prepare the data.")
            body.append(
                f"{_tuple(given)} = {load}({self._passed(layout.load)})"
                if given
                else f"{load}({self._passed(layout.load)})"
            )
        if self._trained_at_once():
            body += self._text(layout.train, options="options.")
        elif layout.train:
            taken = self._outputs(layout.load, self._reads(layout.train))
            given = self._outputs(layout.train, saving)
            blocks += self._function(train, layout.train, taken, given, "Fit the model.")
            body.append(
                f"{_tuple(given)} = {train}({self._passed(layout.train, taken)})"
                if given
                else f"{train}({self._passed(layout.train, taken)})"
            )
        if layout.evaluate:
            taken = self._outputs([*layout.load, *layout.train], self._reads(layout.evaluate))
            blocks += self._evaluate(evaluate, taken)
            body += [
                f"for name, value in {evaluate}({self._passed(layout.evaluate, taken)}).items():",
                '    print(f"{name}: {value:.4f}")',
            ]
        body += self._text(layout.save, options="options.")
        wanted = self._reads([*layout.save, *(layout.train if self._trained_at_once() else [])])
        body = [
            f"{own.name} = options.{own.name}" for own in self.parameters if own.named and own.name in wanted
        ] + body
        body.append(self.pack)
        if self.seed:
            body = [*self.seeding, *body]
        blocks += [
            "",
            "def main() -> None:",
            '    """Train, measure and save the model."""',
            *_indented([*self._parser(), *body]),
        ]
        blocks += ["", "", 'if __name__ == "__main__":', "    main()"]
        return "\n".join(blocks) + "\n"

    def _constants(self) -> list[Kept]:
        """Give the constants that no option stands for."""
        options = {each.name for each in self.parameters if each.named}
        return [each for each in self.layout.constants if constant_of(each.step.node) not in options]

    def _trained_at_once(self) -> bool:
        """Say whether one call of the notebook's own `train` is all there is to it."""
        return len(self.layout.train) == 1 and NAMES[1][0] in {
            node.func.id
            for node in ast.walk(self.layout.train[0].step.node)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        } & {*self.scope.functions}

    def _called(self, *names: str) -> str:
        return next((name for name in names if name not in self.taken), _free(names[0], self.taken))

    def _function(
        self, name: str, kept: Sequence[Kept], taken: Sequence[str], given: Sequence[str], says: str
    ) -> list[str]:
        lines = self._text(kept)
        last = [f"return {', '.join(given)}"] if given else []
        head = ", ".join([*taken, *(["*", *self._wanted(kept)] if self._wanted(kept) else [])])
        return ["", f"def {name}({head}):", f'    """{says}"""', *_indented([*lines, *last]), ""]

    def _evaluate(self, name: str, taken: Sequence[str]) -> list[str]:
        steps = self.layout.evaluate
        own = [self.metrics.get(id(each.step), ()) for each in steps]
        tail = next((place for place, found in enumerate(own) if found), 0)
        read = {name for each in steps for name in each.step.effect.reads}
        if all(own[tail:]) and not read & {each.variable for found in own for each in found}:
            entries = [f'"{each.name}": {each.value}' for found in own for each in found]
            words = [word for each in steps[tail:] for word in each.statement.comments]
            lines = [*self._text(steps[:tail]), *words, f"return {{{', '.join(entries)}}}"]
        else:
            lines = ["measured = {}"]
            for each, found in zip(steps, own, strict=True):
                lines += each.statement.comments if found else self._text([each])
                for metric in found:
                    made = f"{metric.variable} = {metric.value}\n" if metric.variable else ""
                    lines.append(f'{made}measured["{metric.name}"] = {metric.variable or metric.value}')
            lines.append("return measured")
        head = ", ".join(
            [*taken, *(["*", *self._wanted(self.layout.evaluate)] if self._wanted(self.layout.evaluate) else [])]
        )
        return [
            "",
            f"def {name}({head}):",
            '    """Measure the model; the gate for retraining asks for this."""',
            *_indented(lines),
            "",
        ]

    def _straight(self) -> str:
        layout = self.layout
        lines = [self.head, *self._imports(), ""]
        lines += [
            "",
            "def parsed():",
            '    """Read the command line."""',
            *_indented([*self._parser(), *(["return options"] if self.parameters else [])]),
            "",
        ]
        lines += ["", "options = parsed()" if self.parameters else "parsed()", *(self.seeding if self.seed else [])]
        order = sorted([*layout.constants, *layout.definitions, *layout.body], key=lambda each: each.place)
        for each in order:
            name = constant_of(each.step.node)
            if any(other.named and other.name == name for other in self.parameters):
                lines += [*each.words, *each.statement.comments, f"{name} = options.{name}"]
            else:
                lines += self._text([each], options="options.")
        return "\n".join([*lines, self.pack]) + "\n"

    def _parser(self) -> list[str]:
        lines = ['parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\\n")[0])']
        for each in self.parameters:
            said = each.help or f"{each.name.strip('_')} of the notebook."
            kind = "" if each.kind == "str" else f", type={each.kind}"
            dest = "" if each.option == f"--{each.name.replace('_', '-')}" else f', dest="{each.name}"'
            told = f'{dest}{kind}, default={each.default}, help="{said} [%(default)s]"'
            words = self.said.get(each.name, []) if each.named else []
            lines += [*words, f'parser.add_argument("{each.option}"{told})']
        return [*lines, "options = parser.parse_args()" if self.parameters else "parser.parse_args()"]

    # ---- names that go from one function to the next ---------------------------------------------------

    def _reads(self, kept: Iterable[Kept]) -> set[str]:
        return {name for each in kept for part in each.step.walk() for name in part.effect.reads}

    def _outputs(self, kept: Iterable[Kept], wanted: set[str]) -> list[str]:
        """Name what statements make and others want, in the order in which it is made."""
        made = [name for each in kept for part in each.step.walk() for name in sorted(part.effect.binds)]
        return [name for name in dict.fromkeys(made) if name in wanted and not name.startswith("*")]

    def _wanted(self, kept: Sequence[Kept]) -> list[str]:
        """Name the parameters that statements use."""
        return [each.name for each in self._used(kept)]

    def _used(self, kept: Sequence[Kept]) -> list[Parameter]:
        reads = self._reads(kept)
        inside = {id(node) for each in kept for node in ast.walk(each.step.node)}
        return [
            each
            for each in self.parameters
            if (each.named and each.name in reads) or any(id(node) in inside for node in each.nodes)
        ]

    def _passed(self, kept: Sequence[Kept], taken: Sequence[str] = ()) -> str:
        return ", ".join([*taken, *(f"{each.name}=options.{each.name}" for each in self._used(kept))])


def _tuple(names: Sequence[str]) -> str:
    return ", ".join(names)


def _indented(lines: Iterable[str]) -> list[str]:
    """Move code to the right; what stands within texts of several lines stays."""
    made = []
    for block in lines:
        inside = _inside_texts(block)
        made += [
            line if place in inside or not line.strip() else "    " + line
            for place, line in enumerate(block.split("\n"))
        ]
    return made


def _dense(block: str) -> str:
    """Leave out blank lines within a function, unless a comment or another function follows."""
    inside, lines = _inside_texts(block), block.split("\n")
    after = [*lines[1:], ""]
    return "\n".join(
        line
        for place, (line, following) in enumerate(zip(lines, after, strict=True))
        if line.strip() or place in inside or re.match(r"\s*(#|@|(async )?def |class )", following)
    )


def _inside_texts(block: str) -> set[int]:
    """Find the lines that begin within a text of several lines."""
    try:
        tree = ast.parse(block)
    except SyntaxError:
        return set()
    found: set[int] = set()
    for node in ast.walk(tree):
        text = isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
        )
        if text:
            found |= {*range(node.lineno, node.end_lineno or node.lineno)}  # type: ignore[attr-defined]
    return found
