"""The one error that is the user's to mend."""


class UserError(ValueError):
    """A mistake in what the user gave: one line that says what, where, and what is allowed or what to do.

    The command line prints the line alone and ends with exit code 2.
    """
