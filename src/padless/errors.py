"""The exceptions that padless raises.

::

    PadlessError
    +-- LengthsError (ValueError)    lengths that do not describe the data
    +-- LayoutError (ValueError)     batch_sizes, indices or offsets that no batch can have
    +-- StateError (ValueError)      the state of a sampler that draws other batches
    +-- BackendError (RuntimeError)  a backend or instruction set that is not available
    +-- DisagreementError            benchmark contestants that computed different things
    +-- UsageError (ValueError)      a command line that makes no sense (exit code 2)

Errors that torch raises for the same mistake keep torch's own class and words.
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
    """Lengths that do not describe the data; the message names the first culprit by index."""


class LayoutError(PadlessError, ValueError):
    """`batch_sizes`, `sorted_indices` or offsets that no batch of sequences can have."""


class StateError(PadlessError, ValueError):
    """A sampler was given a state that is not its own: its batches would be others than those that are done."""


class BackendError(PadlessError, RuntimeError):
    """A backend or an instruction set was forced that is not available here; the message says why."""


class DisagreementError(PadlessError):
    """Contestants of a benchmark computed different things, so timing them would say nothing."""


class UsageError(PadlessError, ValueError):
    """Command-line arguments that make no sense; the command ends with exit code 2."""
