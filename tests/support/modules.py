"""The modules of the package as their source shows them: their imports and their prose."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import suno_persona

ROOT = Path(suno_persona.__file__).parent
MODULES: dict[str, Path] = {}
for _path in sorted(ROOT.rglob("*.py")):
    _parts = ("suno_persona", *_path.relative_to(ROOT).with_suffix("").parts)
    MODULES[".".join(_parts).removesuffix(".__init__")] = _path


@cache
def tree(module: str) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str, *, types: bool = True) -> set[str]:
    """Return the package's modules that a module imports; with `types`, also those that only type checkers import."""
    return {name for node, typed in _walk(tree(module)) if types or not typed for name in _named(node)} - {module}


def defined() -> set[str]:
    """Return what the package defines: names, parameters, and one-word texts such as members of JSON."""
    found = {part for name in MODULES for part in name.split(".")}
    for node in (node for module in MODULES for node in ast.walk(tree(module))):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                found.add(name)
            case ast.Constant(value=str(text)) if re.fullmatch(r"\w+", text):
                found.add(text)
    return found


def foreign(module: str) -> set[str]:
    """Return the third-party packages that a module imports."""
    found = set()
    for node, _ in _walk(tree(module)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.partition(".")[0] for name in names}
    return found - {"suno_persona"}


def _walk(node: ast.AST, typed: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Yield the nodes below a node, each with whether only type checkers run it."""
    for child in ast.iter_child_nodes(node):
        is_guard = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        yield child, typed
        yield from _walk(child, typed or is_guard)


def _named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in MODULES)
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            submodule = f"{node.module}.{alias.name}"
            if submodule in MODULES:
                yield submodule
            elif node.module in MODULES:
                yield node.module


def prose(module: str) -> Iterator[tuple[int, str]]:
    """Yield a module's docstrings, messages and comments, each with its line."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
    yield from _comments(MODULES[module])


def documented(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the names of a file's functions and classes, its docstrings and its comments, each with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name.replace("_", " ")
            case ast.Expr(value=ast.Constant(value=str(docstring))):
                yield node.lineno, docstring
    yield from _comments(path)


def _comments(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if (comment := line.strip()).startswith("# ") or "  # " in line:
            yield number, comment.rpartition("# ")[2]


def private_accesses(module: str) -> list[str]:
    """Return where a module uses an underscore name of an object that it does not define itself."""
    nodes = list(ast.walk(tree(module)))
    own = {node.attr for node in nodes if isinstance(node, ast.Attribute) and _is_self(node.value)}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    own |= {node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    return [
        f"{module}:{node.lineno}: {ast.unparse(node)}"
        for node in nodes
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in ("_replace", "_asdict", "_exit")  # public names of named tuples and of `os`
        and not _is_self(node.value)
        and node.attr not in own
    ]


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")
