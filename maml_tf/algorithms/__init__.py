"""One file per algorithm; the registry finds every Learner subclass defined in this package.

`--algorithm` is the class's name in lower case. A module may have `define_flags(flags)` for flags of its own.
"""
import importlib
import inspect
import pkgutil

from maml_tf.learner import Learner


def modules():
    """The modules of this package, one per algorithm."""
    return [importlib.import_module(f'{__name__}.{info.name}') for info in pkgutil.iter_modules(__path__)]


def registry():
    """{name: Learner subclass}"""
    return {name.lower(): cls for module in modules() for name, cls in inspect.getmembers(module, inspect.isclass)
            if issubclass(cls, Learner) and cls.__module__ == module.__name__}
