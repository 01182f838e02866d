"""The exceptions that padless raises.

::

    PadlessError
    +-- LengthsError (ValueError)    lengths that do not describe the data
    +-- LayoutError (ValueError)     invalid batch_sizes, indices or offsets
    +-- StateError (ValueError)      the state of a sampler with other lengths or options
    +-- BackendError (RuntimeError)  a backend or instruction set that is not available
    +-- DisagreementError            benchmark contestants whose results differ
    +-- UsageError (ValueError)      invalid command-line arguments (exit code 2)

Errors that torch raises for the same mistake keep torch's class and text.
"""

__all__ = [
    "BackendError",
    "DisagreementError",
    "LayoutError",
    "LengthsError",
    "PadlessError",
    "StateError",
    "UsageError",
]


class PadlessError(Exception):
    """Base of every exception that padless defines."""


class LengthsError(PadlessError, ValueError):
    """Lengths that do not describe the data; the message names the index of the first wrong one."""


class LayoutError(PadlessError, ValueError):
    """`batch_sizes`, indices or offsets that do not describe a batch of sequences."""


class StateError(PadlessError, ValueError):
    """Raised when a sampler loads the state of a sampler with other lengths or options."""


class BackendError(PadlessError, RuntimeError):
    """Raised when a forced backend or instruction set is not available here; the message says why."""


class DisagreementError(PadlessError):
    """Raised when the results of benchmark contestants differ, so that timing them would be meaningless."""


class UsageError(PadlessError, ValueError):
    """Invalid command-line arguments; the command exits with code 2."""
