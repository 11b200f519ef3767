"""Ctrl-C and SIGTERM as a question to be asked, so that a step is never cut in two."""

import signal


class Interrupts:
    """While entered, notes SIGINT and SIGTERM: `asked` turns true. A second Ctrl-C interrupts at
    once."""

    def __init__(self):
        self.asked = False

    def __enter__(self):
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        del frame
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
