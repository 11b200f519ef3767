"""No two processes train in one run directory."""

import contextlib
import io
import multiprocessing
import os
import signal
import socket

import pytest

from maml_tf.errors import UserError
from maml_tf.serialisation.lock import held

# A new interpreter, which has nothing of this one's.
processes = multiprocessing.get_context('spawn')


def hold(directory, connection):
    """Another process: says that it holds the lock, and ends when it is told to."""
    with held(directory):
        connection.send('held')
        connection.recv()


@pytest.fixture
def other(tmp_path):
    """(the directory, a process that holds it, the connection to it)."""
    directory = tmp_path / 'logs' / 'run'
    ours, theirs = processes.Pipe()
    process = processes.Process(target=hold, args=(directory, theirs))
    process.start()
    theirs.close()
    assert ours.recv() == 'held'
    yield directory, process, ours
    process.kill()
    process.join()


def test_a_directory_that_another_process_holds(other):
    directory, process, connection = other
    for _ in range(2):
        with pytest.raises(UserError) as error, held(directory):
            pytest.fail('not reached')
        assert str(error.value).startswith(
            f'{directory}: process {process.pid} on {socket.gethostname()} trains in it; '
        )
    with held(directory.with_name('another')):
        pass
    connection.send('end')
    process.join()
    with held(directory):
        pass
    assert not directory.parent.exists()


def test_a_process_that_is_killed_gives_it_up(other):
    directory, process, _ = other
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (directory.parent / '.run.lock').exists()
    with (
        held(directory),
        pytest.raises(UserError, match=f'process {os.getpid()} '),
        held(directory),
    ):
        pytest.fail('not reached')


def test_it_leaves_what_is_not_its_own(tmp_path):
    with held(tmp_path / 'logs' / 'run'):
        (tmp_path / 'logs' / 'run').mkdir()
    assert [path.name for path in (tmp_path / 'logs').iterdir()] == ['run']


def test_a_directory_that_is_renamed_meanwhile(tmp_path):
    directory = tmp_path / 'run'
    directory.mkdir()
    with held(directory):
        directory.rename(tmp_path / 'run.old1')
        with pytest.raises(UserError), held(directory):
            pytest.fail('not reached')
    with held(directory):
        pass


def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys):
    def without(file, how):
        raise OSError(38, 'Function not implemented')

    monkeypatch.setattr('maml_tf.serialisation.lock.fcntl.flock', without)
    with held(tmp_path / 'run'):
        assert 'has no locks' in capsys.readouterr().out
    monkeypatch.setattr(
        'maml_tf.serialisation.lock.fcntl.flock',
        lambda *_: (_ for _ in ()).throw(OSError(5, 'Input/output error')),
    )
    with pytest.raises(OSError, match='Input/output'), held(tmp_path / 'run'):
        pytest.fail('not reached')


def test_one_that_waits(other):
    """It says for whom, and goes on when the other has ended."""
    directory, process, connection = other
    said = io.StringIO()

    class Saying(io.StringIO):
        def write(self, text):
            if 'waiting' in text:
                connection.send('end')
            return said.write(text)

    with contextlib.redirect_stdout(Saying()), held(directory, 'prepares it', wait=True) as locked:
        process.join()
        assert locked
    assert f'process {process.pid} on {socket.gethostname()} prepares it; wait' in said.getvalue()
    assert not any(directory.parent.iterdir())
