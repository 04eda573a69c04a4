"""Lists the experiments: `python -m experiments`."""

import ast
import pkgutil
from pathlib import Path


def experiments() -> dict[str, str]:
    """Names of the experiments to the first line of their documentation; imports none of them."""
    folder = Path(__file__).parent
    names = sorted(info.name for info in pkgutil.iter_modules([str(folder)]))
    found = {}
    for name in names:
        if not name.startswith("_"):
            doc = ast.get_docstring(ast.parse((folder / f"{name}.py").read_text())) or ""
            found[name] = " ".join(doc.split("\n\n")[0].split())
    return found


if __name__ == "__main__":
    for name, line in experiments().items():
        print(f"python -m experiments.{name:<12} {line}")
    print("\nEach takes --help.")
