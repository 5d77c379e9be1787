"""The static pass: reads every opcode of a file on an abstract stack, and runs nothing."""

import io
import pickletools
from collections.abc import Callable

from ketch.trust import Blob, Box, Fault, Finding, Lists, Made, Name, sibling

DEEPEST = 128  # containers and objects inside one another
MARKS = 512
MOST_OPCODES = 100_000_000
MOST_STACK = 1_000_000
KEPT_ENTRIES = 5_000
KEPT_BYTES = 256
MOST_FAULTS = 20

ITEMS = {("sklearn.utils", "Bunch"), ("sklearn.utils._bunch", "Bunch"), ("collections", "OrderedDict")}
ITEMS |= {("collections", "defaultdict"), ("sklearn.covariance._graph_lasso", "_DictWithDeprecatedKeys")}
WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")
NDARRAY = ("numpy", "ndarray")
UNUSUAL = {
    "EXT1": "uses the extension registry", "EXT2": "uses the extension registry", "EXT4": "uses the extension registry",
    "PERSID": "asks for a persistent object", "BINPERSID": "asks for a persistent object",
    "NEXT_BUFFER": "keeps buffers outside the file", "READONLY_BUFFER": "keeps buffers outside the file",
}  # fmt: skip


def scan(data: bytes, known: Lists) -> Finding:
    """Return what the file wants and what speaks against it; never raises for what is in the file."""
    inflate = sibling("inflate")
    packed = bool(inflate.packing(data))
    try:
        body = inflate.inflate(data)
    except Fault as fault:
        return Finding("joblib", faults=(str(fault),))
    if len(body) < 3 or body[0] != 0x80 or not 2 <= body[1] <= 5:
        fault_text = "It does not start like one, or was written with protocol 0 or 1: save it again"
        return Finding("", faults=(fault_text,))
    machine = _Machine(io.BytesIO(body), len(body), known)
    try:
        machine.run()
        if machine.stream.tell() != len(body):
            machine.complain("something more follows after its end")
    except Fault as fault:
        machine.complain(str(fault))
    except Exception:  # whatever the reader trips over, the file is not one that a pickler wrote
        machine.complain("it is damaged or ends in the middle")
    return machine.finding("joblib" if packed or machine.arrays else "pickle")


def depth(value: object) -> int:
    """Return how many containers and objects stand inside one another in the value."""
    return value.depth if isinstance(value, Box | Made) else 0


class _Machine:
    """An abstract unpickler over one stream; a nested stream gets a machine of its own."""

    def __init__(self, stream: io.BytesIO, size: int, known: Lists, outer: "_Machine | None" = None) -> None:
        self.stream, self.size, self.known, self.outer = stream, size, known, outer
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: list[object] = []
        self.frame_end = 0
        self.arrays = False
        self.arguments, self.arrays_of = sibling("arguments"), sibling("arrays")
        self.imports: set[str] = outer.imports if outer else set()
        self.refused: set[str] = outer.refused if outer else set()
        self.faults: dict[str, None] = outer.faults if outer else {}
        self.versions: set[str] = outer.versions if outer else set()

    def finding(self, kind: str) -> Finding:
        """Return what was seen so far."""
        version = min(self.versions, default="")
        faults = tuple(self.faults)[:MOST_FAULTS]
        return Finding(kind, tuple(sorted(self.imports)), tuple(sorted(self.refused)), faults, version)

    def complain(self, sentence: str) -> None:
        """Note a reason for refusal, and go on."""
        if len(self.faults) <= MOST_FAULTS:
            self.faults[sentence] = None

    def run(self) -> object:
        """Read one stream to its STOP and return what it leaves.

        Raises:
            Fault: it cannot be read any further.
        """
        for count, (opcode, argument, position) in enumerate(pickletools.genops(self.stream)):
            name = opcode.name
            if self.frame_end:
                self._keep_inside_frame(name, position or 0)
            step = STEPS.get(name)
            if step is None:
                why = UNUSUAL.get(name, "is written in an old or unusual way: save it again with protocol 4 or 5")
                raise Fault(f"it {why} ({name})")
            if name == "PROTO" and (count or argument not in range(2, 6)):
                raise Fault("it changes its protocol on the way")
            step(self, argument)
            if count > MOST_OPCODES or len(self.stack) > MOST_STACK:
                raise Fault("it has too many steps")
        return self.stack[0]

    def _keep_inside_frame(self, name: str, position: int) -> None:
        end = self.stream.tell()
        if position < self.frame_end < end or (name == "FRAME" and end <= self.frame_end):
            raise Fault("its frames overlap")

    # the stack

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> object:
        if not self.stack:
            raise Fault("it is damaged: it takes what it has not put down")
        return self.stack.pop()

    def top(self) -> object:
        self.push(value := self.pop())
        return value

    def to_mark(self) -> list[object]:
        if not self.marks:
            raise Fault("it is damaged: it takes what it has not put down")
        taken, self.stack = self.stack, self.marks.pop()
        return taken

    def mark(self, _: object) -> None:
        self.marks.append(self.stack)
        self.stack = []
        if len(self.marks) > MARKS:
            raise Fault(f"it is nested deeper than {DEEPEST}")

    def drop(self, _: object) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.to_mark()

    def drop_mark(self, _: object) -> None:
        self.to_mark()

    def use(self, value: object) -> int:
        """Let the value go into something else, and return its depth."""
        if isinstance(value, Made) and value.waits and not value.built:
            self.complain("it uses an array before it is filled")
        deep = depth(value)
        if deep >= DEEPEST:
            raise Fault(f"it is nested deeper than {DEEPEST}")
        return deep

    def store(self, value: object, where: str) -> int:
        """Let the value be kept by a container: a class or a reconstructor may not be."""
        if (isinstance(value, Name) and not value.value) or (isinstance(value, Box) and value.raw):
            name = ".".join(value.pair) if isinstance(value, Name) else "a class"
            self.complain(f"it keeps {name} in {where}, which may only be created from or called")
        return self.use(value)

    # values

    def constant(self, argument: object) -> None:
        large = isinstance(argument, bytes) and len(argument) > KEPT_BYTES
        self.push(Blob(len(argument)) if large and isinstance(argument, bytes) else argument)

    def buffer(self, argument: object) -> None:
        self.push(Blob(len(argument)) if isinstance(argument, bytes | bytearray) else argument)

    def memoize(self, argument: object) -> None:
        if argument is not None and argument != len(self.memo):
            raise Fault("its memo is not in order")
        self.memo.append(self.top())

    def recall(self, argument: object) -> None:
        if not isinstance(argument, int) or not 0 <= argument < len(self.memo):
            raise Fault("its memo is not in order")
        self.push(self.memo[argument])

    def pack(self, values: list[object]) -> None:
        deep = 1 + max(map(self.use, values), default=0)
        raw = any(
            (isinstance(value, Name) and not value.value) or (isinstance(value, Box) and value.raw) for value in values
        )
        self.push(Box("tuple", deep, len(values), raw, tuple(values)))

    def pack_some(self, count: int) -> None:
        self.pack([self.pop() for _ in range(count)][::-1])

    def frozen(self, _: object) -> None:
        values = self.to_mark()
        self.push(box := Box("frozenset"))
        self.grow(box, values, "a set")

    # containers

    def grow(self, box: object, values: list[object], what: str) -> None:
        kind = {"a list": "list", "a set": "set"}[what]
        if not isinstance(box, Box) or box.kind not in {kind, "frozenset"}:
            raise Fault(f"it adds items to something that is not {what} of its own")
        for value in values:
            box.depth = max(box.depth, 1 + self.store(value, what))
        box.count += len(values)

    def append(self, _: object) -> None:
        value = self.pop()
        self.grow(self.top(), [value], "a list")

    def appends(self, _: object) -> None:
        values = self.to_mark()
        self.grow(self.top(), values, "a list")

    def add(self, _: object) -> None:
        values = self.to_mark()
        self.grow(self.top(), values, "a set")

    def set_item(self, _: object) -> None:
        value, key = self.pop(), self.pop()
        self.put([key, value])

    def set_items(self, _: object) -> None:
        self.put(self.to_mark())

    def put(self, pairs: list[object]) -> None:
        box = self.top()
        if len(pairs) % 2:
            raise Fault("it is damaged: a key without a value")
        if not (isinstance(box, Box) and box.kind == "dict") and not (isinstance(box, Made) and box.pair in ITEMS):
            raise Fault("it sets items of something that is not a dict of its own")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            array_class = key == "subclass" and isinstance(value, Name) and value.pair == NDARRAY
            deep = max(self.store(key, "a dict"), 0 if array_class else self.store(value, "a dict"))
            box.depth = max(box.depth, 1 + deep)
            if isinstance(box, Box):
                self._remember(box, key, value)

    def _remember(self, box: Box, key: object, value: object) -> None:
        box.count += 1
        if box.entries is not None and box.count <= KEPT_ENTRIES:
            box.entries[key if isinstance(key, str | int) else id(key)] = value
        else:
            box.entries = None
        if key == "_sklearn_version" and isinstance(value, str):
            self.versions.add(value[:20])

    # globals and calls

    def named(self, argument: object) -> None:
        module, _, name = str(argument).partition(" ")
        self.want(module, name)

    def stack_named(self, _: object) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Fault("it makes up the name of an import on the way")
        self.want(module, name)

    def want(self, module: str, name: str) -> None:
        pair = self.known.settle(module, name)
        shown = f"{module}.{name}"[:200]
        self.imports.add(shown)
        if not (known := self.known.holds(pair)):
            self.refused.add(shown)
        self.push(Name(pair, known, not known or pair in self.known.functions))

    def reduce(self, _: object) -> None:
        given, callee = self.pop(), self.pop()
        if not isinstance(given, Box) or given.kind != "tuple":
            raise Fault("it calls something without a plain list of arguments")
        self.push(self._called(callee, given))

    def _called(self, callee: object, given: Box) -> object:
        if not isinstance(callee, Name):
            raise Fault("it calls something that is not an import")
        if not callee.known:
            return Made(callee.pair, 1 + given.depth)
        try:
            if callee.pair not in self.known.reconstructors:
                raise Fault(f"it calls {'.'.join(callee.pair)}, which a file may not do")
            made: object = self.arguments.call(callee.pair, given.items, self.known)
        except Fault as fault:
            self.complain(str(fault))
            made = Made(callee.pair)
        if isinstance(made, Made):
            made.depth = max(made.depth, given.depth)
        return Blob(len(made)) if isinstance(made, bytes) and len(made) > KEPT_BYTES else made

    def new(self, _: object) -> None:
        given, cls = self.pop(), self.pop()
        if not isinstance(cls, Name) or not isinstance(given, Box) or given.kind != "tuple":
            raise Fault("it creates something that is not a class")
        if self.arguments.is_tuple_class(cls.pair):
            self.push(self._called(cls, given))
            return
        shown = ".".join(cls.pair)
        if cls.known and cls.pair not in self.known.classes:
            self.complain(f"it creates {shown}, which a file may not do")
        elif cls.known and given.count:
            self.complain(f"it creates {shown} with arguments")
        self.push(Made(cls.pair, waits=cls.pair == WRAPPER))

    def build(self, _: object) -> None:
        state, made = self.pop(), self.pop()
        self.push(made)
        if not isinstance(made, Made):
            what = ".".join(made.pair) if isinstance(made, Name) else "something that it did not create"
            raise Fault(f"it changes {what}: only fresh objects may be given a state")
        if made.built or "spent" in made.facts:
            raise Fault(f"it gives {'.'.join(made.pair)} a state for a second time")
        made.depth = max(made.depth, 1 + self.store(state, f"the state of {made.pair[1]}"))
        if made.pair == WRAPPER:
            self._read_array(made, state)
            return
        made.built = True
        if not self.known.holds(made.pair):
            return
        try:
            self.arguments.build(made, state, made.pair in self.known.classes)
        except Fault as fault:
            self.complain(str(fault))

    def _read_array(self, made: Made, state: object) -> None:
        if self.outer is not None or (self.frame_end and self.stream.tell() < self.frame_end):
            raise Fault("an array stands where none can be")
        array, aligned = self.arrays_of.wrapped(state)
        self.arrays = True
        made.facts["spent"] = True
        self.stack[-1] = array
        if array.facts["object"]:
            inner = _Machine(self.stream, self.size, self.known, self).run()
            if not isinstance(inner, Made) or not inner.facts.get("array"):
                raise Fault("an array of objects holds something else")
            self.stack[-1] = inner
            return
        if aligned:
            padding = self.stream.read(1)
            self.stream.seek(padding[0] if padding else 0, io.SEEK_CUR)
        if array.facts["bytes"] > self.size - self.stream.tell():
            raise Fault("an array is larger than the file")
        self.stream.seek(array.facts["bytes"], io.SEEK_CUR)

    def frame(self, argument: object) -> None:
        self.frame_end = self.stream.tell() + int(str(argument))
        if self.frame_end > self.size:
            raise Fault("it is damaged or ends in the middle")

    def stop(self, _: object) -> None:
        if self.marks or len(self.stack) != 1:
            raise Fault("it is damaged: it leaves more than one thing")
        self.store(self.stack[0], "its result")


Step = Callable[[_Machine, object], None]
STEPS: dict[str, Step] = {
    **dict.fromkeys(
        (
            *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
            *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
        ),
        _Machine.constant,
    ),
    **dict.fromkeys(["BINPUT", "LONG_BINPUT", "MEMOIZE"], _Machine.memoize),
    **dict.fromkeys(["BINGET", "LONG_BINGET"], _Machine.recall),
    "PROTO": lambda machine, _: None,
    "FRAME": _Machine.frame,
    "STOP": _Machine.stop,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "BYTEARRAY8": _Machine.buffer,
    "MARK": _Machine.mark,
    "POP": _Machine.drop,
    "POP_MARK": _Machine.drop_mark,
    "EMPTY_TUPLE": lambda machine, _: machine.pack([]),
    "TUPLE1": lambda machine, _: machine.pack_some(1),
    "TUPLE2": lambda machine, _: machine.pack_some(2),
    "TUPLE3": lambda machine, _: machine.pack_some(3),
    "TUPLE": lambda machine, _: machine.pack(machine.to_mark()),
    "EMPTY_LIST": lambda machine, _: machine.push(Box("list")),
    "EMPTY_DICT": lambda machine, _: machine.push(Box("dict")),
    "EMPTY_SET": lambda machine, _: machine.push(Box("set")),
    "FROZENSET": _Machine.frozen,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.add,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.named,
    "STACK_GLOBAL": _Machine.stack_named,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.new,
    "BUILD": _Machine.build,
}
