"""Make docs/functions.md: the functions that docs/method.md names, with signature, docstring and code.

python -m tools.make_functions_page --output docs/functions.md
"""

import argparse
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

import actor_tune

METHOD = Path(__file__).parents[1] / "docs" / "method.md"

HEAD = """# The functions of the method

Made by `make pages` from the code; do not edit. What [the method](method.md) names, in the order in which it does.
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.parse_args().output.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_section(name, found(name)) for name in named(METHOD.read_text(encoding="utf-8")))])


def named(text: str) -> list[str]:
    """Every `module.function` that a page links to this one, each once."""
    return list(dict.fromkeys(re.findall(r"\[`(\w+\.\w+)`\]\((?:\.\./)?functions\.md#[\w-]+\)", text)))


def anchor(name: str) -> str:
    """Where its section begins, as sites and forges make it of the heading."""
    return name.replace(".", "")


def found(name: str) -> Any:
    """The function of that name, `module.function`.

    **Raises:** `LookupError` where no module of that name has it, or several have.
    """
    module, function = name.split(".")
    paths = [each.name for each in pkgutil.walk_packages(actor_tune.__path__, "actor_tune.")]
    candidates = [importlib.import_module(path) for path in paths if path.rpartition(".")[2] == module]
    functions = [vars(each)[function] for each in candidates if inspect.isfunction(vars(each).get(function))]
    if len(functions) != 1:
        raise LookupError(f"{name}: {len(functions)} functions of that name")
    return functions[0]


def _section(name: str, function: Any) -> str:
    module = "/".join(function.__module__.split(".")[1:])
    return f"## {name}\n\n`{module}.py`\n\n```python\n{inspect.getsource(function).rstrip()}\n```\n"


if __name__ == "__main__":
    main()
