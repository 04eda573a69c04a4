"""What a person is told when their input cannot be used: one clear sentence, and an exit code."""


class UsageError(ValueError):
    """A flag, a spec or an argument that cannot be used; a command ends with exit code 2."""

    exit_code = 2


class DataError(RuntimeError):
    """A file, a checkpoint or a number met during a run that cannot be used; exit code 1."""

    exit_code = 1
