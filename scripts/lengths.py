"""Fail when a module or a function has grown past what a reader can take in at once."""

import ast
import sys
from pathlib import Path

MODULE_LINES = 400
FUNCTION_LINES = 60


def overlong(path: Path) -> list[str]:
    """What is too long in this file, a line each."""
    text = path.read_text()
    lines = text.count("\n")
    found = [f"{path}: {lines} lines; a module has at most {MODULE_LINES}"] if lines > MODULE_LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                found.append(
                    f"{path}:{node.lineno}: {node.name} has {length} lines; a function has at most {FUNCTION_LINES}"
                )
    return found


if __name__ == "__main__":
    roots = [Path(name) for name in ("src", "scripts", "benchmarks", "training")]
    problems = [line for root in roots for path in sorted(root.rglob("*.py")) for line in overlong(path)]
    print("\n".join(problems) or "lengths: ok")
    sys.exit(bool(problems))
