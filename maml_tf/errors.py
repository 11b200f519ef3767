"""Errors that are the user's to mend."""


class UserError(ValueError):
    """Bad input. The message is one line that names the flag or file and says what would be
    right."""
