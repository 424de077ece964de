"""The modules of which a compiled wheel has C in place of Python: they hold nothing that would silently do otherwise there.

What can be told from their text is told here, for all of them and without a compiler. `make try-wheel` runs any other test
against what was compiled.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LISTED = (ROOT / "tools" / "compiled.txt").read_text().split()

BUILTINS = {"dict", "list", "set", "frozenset", "tuple", "str", "bytes", "bytearray", "int", "float"}
AT_ONCE = {
    "all",
    "any",
    "dict",
    "extend",
    "frozenset",
    "join",
    "list",
    "max",
    "min",
    "next",
    "set",
    "sorted",
    "sum",
    "tuple",
    "union",
    "update",
}
"""What takes all that a generator expression makes before it returns."""


def name_of(node: ast.expr) -> str:
    """The last word of what is named, called or subscripted."""
    if isinstance(node, ast.Call):
        return name_of(node.func)
    if isinstance(node, ast.Subscript):
        return name_of(node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def faults(tree: ast.Module) -> Iterator[str]:
    """What a module that is compiled may not have, each with its line."""
    consumed = {
        id(inner)
        for node in ast.walk(tree)
        for inner in (
            node.args
            if isinstance(node, ast.Call) and name_of(node) in AT_ONCE
            else [node.value]
            if isinstance(node, ast.Starred)
            else []
        )
    }
    for node in ast.walk(tree):
        for line in _faults_of(node, consumed):
            yield f"line {getattr(node, 'lineno', 0)}: {line}"


def _faults_of(node: ast.AST, consumed: set[int]) -> Iterator[str]:
    if isinstance(node, ast.ClassDef) and {name_of(base) for base in node.bases} & {"Struct", "Record"}:
        yield "msgspec reads a structure's annotations, which become nothing"
    elif isinstance(node, ast.Compare) and any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
        if any(isinstance(one, ast.Constant) and one.value is not None for one in [node.left, *node.comparators]):
            yield "numbers, booleans among them, have no identity"
    elif isinstance(node, ast.Attribute):
        if node.attr in {"_thread", "_inline", "_volatile", "_int128"}:
            yield "an attribute gets another underscore in front of it, and C has that word"
        if node.attr in {"__slots__", "__dict__"}:
            yield "a compiled object has none"
    elif isinstance(node, ast.Call) and name_of(node) in {"copy", "deepcopy"} and isinstance(node.func, ast.Name):
        yield "a copy of a compiled object has none of its values"
    elif isinstance(node, ast.GeneratorExp) and id(node) not in consumed:
        yield "all of it is made at once; say so with a list, or make it a generator function"
    elif isinstance(node, ast.AsyncFunctionDef) and any(isinstance(one, ast.Yield) for one in ast.walk(node)):
        yield "there are no asynchronous generators"


@pytest.mark.parametrize(
    "text",
    [
        "class A(msgspec.Struct):\n    x: int",
        "y = x.most is True",
        "y = x is not False",
        "self._thread = None",
        "fields = thing.__slots__",
        "other = copy(thing)",
        "rows = (row for row in found)",
        "def f():\n    return (row for row in found)",
        "async def f():\n    yield 1",
    ],
)
def test_what_does_otherwise_is_found(text: str) -> None:
    assert len(list(faults(ast.parse(text)))) == 1


@pytest.mark.parametrize(
    "text", ["y = x is None", "y = any(row for row in found)", "y = [*(row for row in found)]", "y = x.copy()"]
)
def test_what_does_the_same_is_let_pass(text: str) -> None:
    assert list(faults(ast.parse(text))) == []


def test_list_names_each_module_once() -> None:
    assert sorted(set(LISTED)) == LISTED
    assert [name for name in LISTED if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("name", LISTED)
def test_listed_module_has_nothing_that_a_compiled_one_does_otherwise(name: str) -> None:
    assert list(faults(ast.parse((ROOT / name).read_text()))) == []


def members(node: ast.ClassDef) -> tuple[set[str], set[str]]:
    """The names that are given a value in a class and are not `ClassVar`; and all of a class."""
    values, names = set[str](), set[str]()
    for part in node.body:
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(part.name)
        elif isinstance(part, ast.Assign):
            values |= {name_of(target) for target in part.targets}
        elif isinstance(part, ast.AnnAssign) and part.value is not None:
            (names if name_of(part.annotation) == "ClassVar" else values).add(name_of(part.target))
    values.discard("__slots__")
    return values, names | values


class Classes:
    """All classes of the server, by their full names."""

    def __init__(self) -> None:
        self.bases: dict[str, list[str]] = {}
        self.file: dict[str, str] = {}
        self.values: dict[str, set[str]] = {}
        """What each class gives all its objects a value of, where it is not said to be the class's own."""
        self.names: dict[str, set[str]] = {}
        """What else it defines, and that."""
        self.open: set[str] = set()
        """Those that may be parents of classes in plain Python."""
        for path in (ROOT / "mqtt_im").rglob("*.py"):
            self._read(path)

    def _read(self, path: Path) -> None:
        tree = ast.parse(path.read_text())
        file = path.relative_to(ROOT)
        parts = file.with_suffix("").parts
        module, package = ".".join(parts), ".".join(parts[:-1])
        known: dict[str, str] = {}
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                above = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
                origin = ".".join(filter(None, [above if node.level else "", node.module]))
                known |= {alias.asname or alias.name: f"{origin}.{alias.name}" for alias in node.names}
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                name = f"{module}.{node.name}"
                self.file[name] = str(file)
                self.bases[name] = [self._full(base, module, known) for base in node.bases]
                self.values[name], self.names[name] = members(node)
                if any(name_of(decorator) == "mypyc_attr" for decorator in node.decorator_list):
                    self.open.add(name)

    def _full(self, base: ast.expr, module: str, known: dict[str, str]) -> str:
        first, _, rest = ast.unparse(base.value if isinstance(base, ast.Subscript) else base).partition(".")
        return ".".join(filter(None, [known.get(first, f"{module}.{first}"), rest]))

    def above(self, name: str) -> Iterator[str]:
        """Its parents, and theirs."""
        for base in self.bases.get(name, ()):
            yield base
            yield from self.above(base)

    def is_protocol(self, name: str) -> bool:
        """Whether it only says what others have."""
        return any(base.endswith(".Protocol") for base in self.above(name))


@pytest.fixture(scope="module")
def classes() -> Classes:
    """As the sources have them."""
    return Classes()


def test_a_compiled_parent_of_what_is_not_compiled_says_so(classes: Classes) -> None:
    wanted = {
        base
        for name, file in classes.file.items()
        if file not in LISTED
        for base in classes.above(name)
        if classes.file.get(base) in LISTED and not classes.is_protocol(base)
    }
    assert len(wanted) > 5, "the parents are found"
    assert sorted(wanted - classes.open) == []


def test_what_objects_of_a_class_have_is_not_something_else_in_a_subclass(classes: Classes) -> None:
    """Compiled code reads it where the parent has it; a property overrides a property, and a `ClassVar` is looked up."""
    overridden = {
        (base, name): classes.values[base] & classes.names[name]
        for name in classes.file
        for base in classes.above(name)
        if classes.file.get(base) in LISTED and not classes.is_protocol(base)
    }
    assert len(overridden) > 5, "the parents are found"
    assert [pair for pair, names in overridden.items() if names] == []


def test_nothing_of_the_store_is_a_builtin_with_methods_of_its_own(classes: Classes) -> None:
    """Compiled code reads a `dict` as what it is said to be, past such methods; a `MutableMapping` it asks."""
    places = "mqtt_im/store/", "mqtt_im/core/", "mqtt_im/bridge/"
    parts = [name for name, file in classes.file.items() if file.startswith(places)]
    assert [name for name in parts if {base.rpartition(".")[2] for base in classes.bases[name]} & BUILTINS] == []


def test_what_is_left_out_of_tests_of_a_wheel_is_there() -> None:
    left_out = [line.split("::") for line in (ROOT / "tools" / "uncompiled.txt").read_text().splitlines() if line[0] != "#"]
    assert len(left_out) > 5
    assert [name for file, name in left_out if f"def {name}(" not in (ROOT / file).read_text()] == []
