"""Errors of the small commands: one line, exit code 1, no stack trace."""

import pytest

from maml_tf.errors import ArgumentError, UserError
from maml_tf.terminal.exit import errors_as_one_line


def exit_of(error, **options):
    """What the program ends with: text means exit code 1."""
    with pytest.raises(SystemExit) as end, errors_as_one_line(**options):
        raise error
    return end.value.code


def test_user_errors():
    assert exit_of(UserError('photos: no class in it')) == 'error: photos: no class in it'


def test_it_is_one_line():
    assert exit_of(UserError('two\nlines of \udcff')) == 'error: two lines of \\udcff'


def test_arguments_by_their_own_name_or_by_their_flag():
    error = ArgumentError('way', 9, 'there are 5 classes')
    assert exit_of(error) == 'error: way=9: there are 5 classes'
    flags = {'way': 'num_classes'}
    assert exit_of(error, flags=flags) == 'error: --num_classes=9: there are 5 classes'
    other = ArgumentError('seed', None, 'is missing')
    assert exit_of(other, flags=flags) == 'error: --seed: is missing'


def test_files():
    error = PermissionError(13, 'Permission denied', 'photos/a.jpg')
    assert exit_of(error, file='--output') == (
        'error: photos/a.jpg: Permission denied; make it readable and writable, or name another'
    )
    assert exit_of(OSError(28, 'No space left on device'), file='--output') == (
        'error: --output: No space left on device; make room, and give the same command again'
    )


def test_interrupts():
    assert exit_of(KeyboardInterrupt()) == 'interrupted'
    assert exit_of(KeyboardInterrupt(), interrupted='goes on later') == 'goes on later'


def test_other_errors_keep_their_stack_trace():
    with pytest.raises(ZeroDivisionError), errors_as_one_line():
        print(1 / 0)


def test_as_a_decorator():
    @errors_as_one_line()
    def command(number):
        if number < 0:
            raise UserError('too small')
        return number

    assert command(3) == 3
    for _ in range(2):
        with pytest.raises(SystemExit, match='error: too small'):
            command(-1)
