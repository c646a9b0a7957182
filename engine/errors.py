"""The engine's errors, along the way of a vector.

    bytes --> envelope --> verified --> decided --> slot --> answer --> bytes
          Refused   Refused      Refused       (none: full rings are return values)

Each error says what was expected, what was found, where, and what to do next. Strangers on a bus
get `Refused.code` and one neutral sentence; everything else is for the operator.
"""

from engine.contract.names import Reason


class TickpathError(Exception):
    """What the engine raises on purpose. Anything else is a fault of ours."""


class SettingsError(TickpathError):
    """A setting, a key file or a secret cannot be used. The message names the key and what is allowed."""


class ArenaError(TickpathError):
    """Shared memory is too small, of another layout, or owned by another engine."""


class ModelError(TickpathError):
    """A model's folder, manifest or artefact cannot be used. The message names the file."""


class CudaError(TickpathError):
    """What CUDA refused. The message names the call and the reason."""


class BusError(TickpathError):
    """A bus cannot be reached or refused what was asked of it."""


class TapeError(TickpathError):
    """A tape cannot be read, or does not hold what was asked for. The message names the file and the byte."""


class StateError(TickpathError):
    """What an earlier engine left of its windows cannot be used. The message names the file."""


class Refused(TickpathError):
    """A message, or one vector of it, is answered by a rejection.

    `reason` is the contract's code; `detail` one sentence that tells the sender what to change,
    free of secrets, names of files and anything that only the engine should know.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.code}: {detail}")
        self.reason = reason
        self.detail = detail
