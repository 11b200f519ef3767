"""One file for each method; the registry finds it, and `--algorithm` is the file's name.

A method is a Learner with a `from_flags`. A module may have `define_flags(flags)` for flags of its
own, which all begin with the method's name.
"""

import functools
import importlib
import inspect
import pkgutil
from types import ModuleType

from maml_tf.learner import Learner


@functools.cache
def modules() -> dict[str, ModuleType]:
    """{name: module} of every method."""
    found = (
        importlib.import_module(info.name)
        for info in pkgutil.walk_packages(__path__, f'{__name__}.')
        if not info.ispkg
    )
    return {module.__name__.rsplit('.', 1)[-1]: module for module in found if _learner(module)}


@functools.cache
def registry() -> dict[str, type[Learner]]:
    """{name: class} of every method."""
    return {name: _learner(module) for name, module in modules().items()}


def _learner(module: ModuleType) -> type[Learner] | None:
    """The method that a module defines; None for a module that only helps others."""
    for _, cls in inspect.getmembers(module, inspect.isclass):
        own = issubclass(cls, Learner) and cls.__module__ == module.__name__
        if own and hasattr(cls, 'from_flags'):
            return cls
    return None
