"""The rooms of the package: imports run one way, no room is crowded, all of them are installed."""

import ast
import configparser

import pytest
from command import ROOT

PACKAGE = ROOT / 'maml_tf'
# A room imports from those before it alone. Files of the package itself are rooms of their own.
ORDER = (
    *('errors', 'terminal', 'serialisation', 'ops', 'update_rules', 'inner_loop', 'rematerialise'),
    *('objectives', 'episodes', 'networks', 'training', 'learner', 'algorithms', 'rl'),
    *('datasets.raw', 'datasets', 'saving', 'evaluation', 'commands'),
)
# What `python -m` starts, and the package's public names.
DOORS = (
    *('__init__', 'adapt', 'compare', 'completions', 'contact_sheet', 'inspect_folder'),
    *('landscape', 'map_region', 'results'),
)
MOST = 13  # files in a room, besides its __init__.py
FILES = sorted(path for path in PACKAGE.rglob('*.py'))


def room(module):
    """The room of a dotted name below the package."""
    return 'datasets.raw' if module.startswith('datasets.raw') else module.split('.')[0]


def imported(tree):
    """Dotted names below the package that a file imports when it is imported itself."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module.startswith('maml_tf.'):
            yield node.module.removeprefix('maml_tf.')
        elif isinstance(node, ast.ImportFrom) and node.module == 'maml_tf':
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    own = room('.'.join(path.relative_to(PACKAGE).with_suffix('').parts))
    if own in DOORS:
        return
    for module in imported(ast.parse(path.read_text('utf-8'))):
        assert ORDER.index(room(module)) <= ORDER.index(own), f'{own} imports {module}'


def test_no_room_is_crowded():
    for folder in {path.parent for path in FILES}:
        files = [path for path in folder.glob('*.py') if path.name != '__init__.py']
        assert len(files) <= MOST, folder


def test_every_room_is_installed_and_says_what_happens_there():
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    listed = {*setup['options']['packages'].split()} - {'maml_tf.data'}
    rooms = {path.parent for path in FILES}
    assert listed == {'.'.join(folder.relative_to(ROOT).parts) for folder in rooms}
    for folder in rooms:
        assert ast.get_docstring(ast.parse((folder / '__init__.py').read_text('utf-8')))


def untyped(body, owner=''):
    """Public functions and methods that lack a type; of --flags anything may come."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
            yield from untyped(node.body, f'{node.name}.')
        elif isinstance(node, ast.FunctionDef):
            constructor = bool(owner) and node.name == '__init__'
            if node.name.startswith('_') and not constructor:
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            names = {one.arg for one in arguments if one.annotation is None}
            if names - {'self', 'cls', 'flags'} or not (node.returns or constructor):
                yield owner + node.name


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_signatures_have_types(path):
    assert not list(untyped(ast.parse(path.read_text('utf-8')).body))
