"""A changed function in the place of the one that this process has loaded.

Its code is exchanged, so that everybody who imported the function runs the change.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import types

from tests.mutation.mutants import Mutant


def replace_function(mutant: Mutant) -> bool:
    """Let the function that this process has loaded do as the mutant; False if that cannot be."""
    assert mutant.function
    name = mutant.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    module = importlib.import_module(name)
    other = types.ModuleType(name)
    other.__file__ = module.__file__
    try:
        sys.modules[name] = other  # dataclasses look their module up
        exec(compile(mutant.code, str(module.__file__), "exec"), other.__dict__)
    finally:
        sys.modules[name] = module
    loaded, changed = _function(module, mutant.function), _function(other, mutant.function)
    if loaded is None or changed is None:
        return False
    if len(loaded.__code__.co_freevars) != len(changed.__code__.co_freevars):
        return False
    loaded.__code__ = changed.__code__
    if repr(loaded.__defaults__) != repr(changed.__defaults__):
        loaded.__defaults__ = changed.__defaults__
    if repr(loaded.__kwdefaults__) != repr(changed.__kwdefaults__):
        loaded.__kwdefaults__ = changed.__kwdefaults__
    return True


def _function(module: types.ModuleType, name: str) -> types.FunctionType | None:
    """Return the function below a property, a method or a cache; None where there is none."""
    found: object = module
    for part in name.split("."):
        found = inspect.getattr_static(found, part)
    if isinstance(found, property):
        found = found.fget
    if isinstance(found, functools.cached_property):
        found = found.func
    if isinstance(found, staticmethod | classmethod):
        found = found.__func__
    if callable(found):
        found = inspect.unwrap(found)
    return found if isinstance(found, types.FunctionType) else None
