"""Any command line is accepted or refused in one line, whatever stands in it.

The command lines are drawn by Hypothesis from the flags as they are defined, of all methods and
sources, always the same ones. MAML_TF_FUZZ=5000 says how many.
"""

import os

import absl.flags
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from maml_tf import algorithms
from maml_tf.commands import command_line
from maml_tf.commands.experiment import problem_of
from maml_tf.commands.outputs import check_outputs
from maml_tf.datasets.sources import SOURCES
from maml_tf.errors import UserError
from maml_tf.terminal.text import shown

NUMBER = int(os.environ.get('MAML_TF_FUZZ', '100'))
MOST = 5  # flags besides those of the method and the data
ODD = st.sampled_from(
    [
        *('', ' ', '0', '-1', '-2', '1', '2', '3.5', '1e300', '-1e300', '1e-320', 'nan', 'inf'),
        *('-inf', '5000000000', '2147483648', '9' * 40, '1_0', '٣', 'None', 'none', 'true'),
        *('False', ',', '1,2', '--', '=', 'a=b', 'ä', '\udcff', '/proc/nothing', '.', '..'),
        *('x' * 300, '#', '%s', '{}'),
    ]
)


def values(flag):
    """Strategy of texts for a flag: such as it takes, and others."""
    parser = flag.parser
    if isinstance(parser, absl.flags.EnumParser):
        return st.sampled_from(parser.enum_values) | ODD
    if isinstance(parser, absl.flags.IntegerParser):
        return st.integers(-3, 30).map(str) | st.integers().map(str) | ODD
    if isinstance(parser, absl.flags.FloatParser):
        return st.floats().map(repr) | st.floats(0, 1).map(repr) | ODD
    return st.text(st.characters(exclude_categories=['Cc', 'Cs']), max_size=8) | ODD


DEFINED = command_line.parsed()
ALL = sorted(command_line.as_dict(DEFINED))


@st.composite
def command_lines(draw):
    """A list of arguments: a method, a source, and some flags; half of them the method's own."""
    method = draw(st.sampled_from(sorted(algorithms.registry())))
    source = draw(st.sampled_from(sorted(SOURCES)))
    arguments = [f'--algorithm={method}', f'--datasource={source}']
    foreign = command_line.of_other_methods(method)
    heeded = [name for name in ALL if name not in foreign]
    for name in draw(st.lists(st.sampled_from(heeded) | st.sampled_from(ALL), max_size=MOST)):
        if DEFINED[name].boolean and draw(st.booleans()):
            arguments.append(draw(st.sampled_from([f'--{name}', f'--no{name}'])))
        else:
            arguments.append(f'--{name}={draw(values(DEFINED[name]))}')
    return arguments


def accepted(arguments):
    """Whether parsing and all checks that need no data accept a command line."""
    try:
        flags = command_line.parsed(*arguments)
    except absl.flags.Error as error:
        assert str(error)
        return False
    try:
        command_line.check(flags)
        check_outputs(flags)
        problem_of(flags)
    except UserError as error:
        assert str(error) and len(shown(error).splitlines()) == 1
        return False
    return True


def test_command_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcomes = []

    @seed(0)
    @settings(
        max_examples=NUMBER,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(command_lines())
    def check(arguments):
        outcomes.append(accepted(arguments))
        # A check leaves nothing; Hypothesis keeps its tables of characters here.
        assert {path.name for path in tmp_path.iterdir()} <= {'.hypothesis'}, arguments

    check()
    # Neither answer is given to all.
    assert 0 < sum(outcomes) < len(outcomes)
