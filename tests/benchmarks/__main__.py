"""`python -m tests.benchmarks` lists the benchmarks; with names it runs those.

Exit 1 if one misses its limit.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

from tests import benchmarks


def main(names: list[str]) -> int:
    """Each benchmark is a module with a docstring and `main() -> bool`: whether its limit holds."""
    known = [
        item.name
        for item in pkgutil.iter_modules(benchmarks.__path__)
        if not item.name.startswith("_")
    ]
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    loaded = {
        name: importlib.import_module(f"{benchmarks.__name__}.{name}") for name in names or known
    }
    if not names:
        for name, module in loaded.items():
            print(f"{name:<12} {(module.__doc__ or '').splitlines()[0]}")
        return 0
    # all of them run, also after one has missed its limit
    held = [module.main() for module in loaded.values()]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
