"""How a mutant changes its module: by the syntax tree, at one place, or not at all.

The place is a function and a piece of its source. The piece is compared as a syntax tree, so layout and
comments do not matter, and it must stand there exactly once: when the code changes, a mutant no longer
applies and says so, and never quietly becomes another bug or none.
"""

import ast
import importlib.util
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from tests.mutants.mutant import Mutant

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class DoesNotApply(Exception):
    """The source is not what the mutant was written for."""


def changed(source: str, mutant: Mutant) -> ast.Module:
    """The module with the bug in it. Fails: `DoesNotApply`."""
    tree = ast.parse(source)
    place = _find(tree, mutant)
    old, new = ast.parse(mutant.old).body, ast.parse(mutant.new).body
    is_expression = _is_expression(old) and _is_expression(new)
    replacing = _Replacing(old, new, is_expression=is_expression)
    replacing.generic_visit(place)
    if replacing.times != 1:
        raise DoesNotApply(
            f"{mutant.name}: `{mutant.old}` stands {replacing.times} times in"
            f" {mutant.module}:{mutant.where or '<module>'}, not once"
        )
    return ast.fix_missing_locations(tree)


def source_of(module: str) -> Path:
    """The file of a module. Fails: `DoesNotApply` when there is none."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise DoesNotApply(f"there is no module {module}")
    return Path(spec.origin)


def _find(tree: ast.Module, mutant: Mutant) -> Definition:
    found: Definition = tree
    for name in filter(None, mutant.where.split(".")):
        inner = [each for each in _definitions(found.body) if each.name == name]
        if len(inner) != 1:
            raise DoesNotApply(f"{mutant.name}: {mutant.module} has {len(inner)} of {mutant.where}")
        found = inner[0]
    return found


def _definitions(
    body: Sequence[ast.stmt],
) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for each in body:
        if isinstance(each, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield each


def _is_expression(body: list[ast.stmt]) -> bool:
    return len(body) == 1 and isinstance(body[0], ast.Expr)


class _Replacing(ast.NodeTransformer):
    """Replaces every occurrence, and counts them."""

    def __init__(self, old: list[ast.stmt], new: list[ast.stmt], *, is_expression: bool) -> None:
        if len(old) != 1:
            raise DoesNotApply("what is replaced is one expression or one statement")
        self._is_expression = is_expression
        self._new = new
        first = old[0]
        self._wanted = ast.dump(first.value if is_expression and isinstance(first, ast.Expr) else first)
        self._kind: type[ast.AST] = ast.expr if is_expression else ast.stmt
        self.times = 0

    def visit(self, node: ast.AST) -> ast.AST | list[ast.stmt]:
        if isinstance(node, self._kind) and ast.dump(node) == self._wanted:
            self.times += 1
            new: ast.AST | list[ast.stmt] = self._new
            if self._is_expression and isinstance(self._new[0], ast.Expr):
                new = ast.copy_location(self._new[0].value, node)
            return new
        self.generic_visit(node)
        return node


# ---- in force -------------------------------------------------------------------------


class _Loader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        """The code of the changed module; what is cached of the true one is not looked at."""
        tree = changed(Path(self.path).read_text(), self._mutant)
        return compile(tree, self.path, "exec", dont_inherit=True)


class Finder(MetaPathFinder):
    """Finds changed modules in place of the true ones. Order: first of `sys.meta_path`, before imports."""

    def __init__(self, mutant: Mutant) -> None:
        self._places = {each.module: each for each in mutant.places()}
        if len(self._places) != len(mutant.places()):
            raise DoesNotApply(f"{mutant.name} changes one module at several places")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        place = self._places.get(fullname)
        if place is None:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            raise DoesNotApply(f"there is no module {fullname}")
        return importlib.util.spec_from_file_location(
            fullname, spec.origin, loader=_Loader(fullname, spec.origin, place)
        )
