"""`python -m tests.benchmarks` lists the benchmarks; with names it runs those.

Exit 1 if one misses its limit.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

from tests import benchmarks


def main(names: list[str]) -> int:
    """Run the benchmarks: modules with a docstring and `main() -> bool` (was the limit met?)."""
    available = [
        item.name
        for item in pkgutil.iter_modules(benchmarks.__path__)
        if not item.name.startswith("_")
    ]
    unknown = [name for name in names if name not in available]
    if unknown:
        print(
            f"got benchmark {unknown[0]!r}; expected one of {', '.join(available)}", file=sys.stderr
        )
        return 2
    loaded = {
        name: importlib.import_module(f"{benchmarks.__name__}.{name}")
        for name in names or available
    }
    if not names:
        for name, module in loaded.items():
            print(f"{name:<12} {(module.__doc__ or '').splitlines()[0]}")
        return 0
    # all of them run, also after one has missed its limit
    outcomes = [module.main() for module in loaded.values()]
    return int(not all(outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
