"""Which metrics exist, and whether higher or lower is better: the library's, and the team's own.

Imports no package, because every command reads it. Must not know how a metric is computed.
"""

import ast
from pathlib import Path

HIGHER = ("auc", "average_precision", "accuracy", "balanced_accuracy", "precision", "recall", "f1",
          "r2")  # fmt: skip
LOWER = ("logloss", "rmse", "mae", "mape")
OF_QUANTITIES = ("r2", *LOWER[1:])
OF_CLASSES = (*HIGHER[:-1], "logloss")
DECORATORS = ("higher_is_better", "lower_is_better")


def declared(file: Path) -> dict[str, bool]:
    """Return the metrics that a script declares with one of the DECORATORS, and whether lower is
    better. Parses it and imports nothing; a file that is missing declares none.

    Raises:
        ValueError: The file cannot be parsed, or a metric has the name of one of the library's.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except FileNotFoundError:
        return {}
    except SyntaxError as error:
        raise ValueError(f"model/{file.name}, line {error.lineno}: {error.msg}") from error
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                name = ast.unparse(decorator).rpartition(".")[2]
                if name in DECORATORS:
                    refuse_taken(node.name, f"model/{file.name}, line {node.lineno}")
                    found[node.name] = name == DECORATORS[1]
    return found


def refuse_taken(name: str, place: str) -> None:
    """Raise ValueError if the library has a metric of this name."""
    if name in (*HIGHER, *LOWER):
        raise ValueError(f"{place}: there is already a metric {name}; rename the function")
