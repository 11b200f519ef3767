"""Trains with several workers on this machine, to try what several machines do.

    python -m maml_tf.commands.workers --number=2 -- --datasource=sinusoid --norm=None --logdir=logs

What follows the two dashes is run_maml.py's. Each worker is a process with a TF_CONFIG of its own,
as a cluster would set it, and they talk over the loopback interface. A worker that is killed is
started again, and all go on from the last checkpoint. An error of one ends all; SIGTERM and Ctrl-C
are passed on. The workers compute on the CPU, unless CUDA_VISIBLE_DEVICES is set: for the GPUs of
one machine, run_maml.py --strategy=mirrored needs no workers.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from maml_tf.errors import ArgumentError, UserError
from maml_tf.terminal.exit import errors_as_one_line
from maml_tf.terminal.interrupts import NUMBERS, handled_by

RESTARTS = 100  # of all workers together: who is killed ever again has another trouble
GRACE = 30.0  # seconds between being asked to end and being killed, as on most clusters


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; arguments: None: those of the program. Raises SystemExit."""
    parser = argparse.ArgumentParser(
        prog='python -m maml_tf.commands.workers',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--number', type=int, default=2, help='of workers')
    parser.add_argument('flags', nargs='*', metavar='-- FLAG', help="run_maml.py's")
    given = parser.parse_args(arguments)
    with errors_as_one_line({}):
        program = importlib.util.find_spec('run_maml')
        if program is None:
            raise UserError('run_maml.py: not found; install the package, or start beside it')
        command = [sys.executable, program.origin, *given.flags, '--strategy=multi_worker']
        sys.exit(run(command, given.number))


def run(command: Sequence[str], number: int) -> int:
    """Runs a command of run_maml.py as so many workers, until all have ended.

    Returns: the exit code: 0, or that of the first worker that ended otherwise; a worker that is
      killed by a signal, or ends with a code that says so, is started again instead.
    Raises: ArgumentError for less than one worker.
    """
    if number < 1:
        raise ArgumentError('number', number, 'at least 1')
    addresses = [f'127.0.0.1:{port}' for port in _free_ports(number)]
    workers = [_Worker(command, addresses, index) for index in range(number)]
    with _passed_on(workers) as asked:
        return _supervise(workers, asked)


class _Worker:
    """One of the processes."""

    def __init__(self, command, addresses, index):
        self.index, self._command = index, [*command]
        task = {'type': 'worker', 'index': index}
        config = json.dumps({'cluster': {'worker': addresses}, 'task': task})
        self._environment = {'CUDA_VISIBLE_DEVICES': '-1'} | os.environ | {'TF_CONFIG': config}
        self.start()

    def start(self):
        # A group of its own: Ctrl-C comes by way of this program, once.
        self._process = subprocess.Popen(self._command, env=self._environment, process_group=0)

    def start_again(self):
        if '--resume=True' not in self._command:
            self._command.append('--resume=True')
        self.start()

    def code(self):
        """The exit code as shells have it; None while it runs."""
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    def send(self, number):
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


@contextlib.contextmanager
def _passed_on(workers):
    """Passes signals on to the workers; gives the list of those that came."""
    came = []

    def pass_on(number, frame):
        del frame
        came.append(number)
        for worker in workers:
            worker.send(number)

    try:
        with handled_by(pass_on, *NUMBERS):
            yield came
    finally:
        for worker in workers:
            worker.send(signal.SIGKILL)


def _supervise(workers, asked):
    running, code, restarts, ending = list(workers), 0, 0, None
    while running:
        time.sleep(0.1)
        for worker in list(running):
            ended = worker.code()
            if ended is None:
                continue
            if ended > 128 and not asked and ending is None and restarts < RESTARTS:
                restarts += 1
                print(f'worker {worker.index} was killed ({ended}): starting it again', flush=True)
                worker.start_again()
                continue
            running.remove(worker)
            code = code or ended
            if ended and ending is None:
                ending = time.monotonic() + GRACE
                for other in running:
                    other.send(signal.SIGTERM)
        if ending and time.monotonic() > ending:
            for worker in running:
                worker.send(signal.SIGKILL)
    return code


def _free_ports(number):
    """Ports that nobody listens to now; the workers take them in a moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(('127.0.0.1', 0))
        return [one.getsockname()[1] for one in sockets]


if __name__ == '__main__':
    main()
