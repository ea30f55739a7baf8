"""Every error that gpurun raises on purpose.

    GpurunError                    message = what happened; hint = the next thing to type
    ├── UsageError                 what was asked for makes no sense (exit 2)
    │   ├── ConfigError            a template, a setting or a file of the user's is wrong
    │   └── BundleError            code or data that can't be shipped
    ├── StateError                 the home can't be read or written (exit 3)
    │   ├── LedgerError            corrupt, of a newer gpurun, or locked for too long
    │   ├── JobGoneError           what is to be shipped is no longer there: the run can be ended, not started
    │   └── LeaseLostError         another controller holds the run now: touch nothing more
    ├── RefusedError               a limit or a guard of ours said no (exit 4)
    └── ProviderError              the money plane failed (exit 3)
        ├── CredentialsError       no key, a wrong key, a key without the right
        ├── NoCapacityError        the offer can't be had now: nothing was rented
        ├── QuotaError             the account may not rent this: nothing was rented
        ├── UnclearError           a launch may or may not have happened: find it by its mark
        ├── UnreachableError       no answer: says nothing about what exists
        └── RemoteError            the byte plane failed while the machine may bill
            ├── HostKeyError       the machine shows another host key than the one made for it
            ├── StartError         the job could not be started there
            └── IntegrityError     bytes arrived that are not the bytes that were sent

An error raised while money runs carries the allocation's id, so that no handler can lose it.
"""

from __future__ import annotations


class GpurunError(Exception):
    """Base of all: `str(e)` says what happened, `e.hint` the next thing to type (may be empty)."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str = "", allocation_id: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.allocation_id = allocation_id

    @property
    def in_a_line(self) -> str:
        """What happened and the way out, for where both stand in one line."""
        return f"{self}: {self.hint}" if self.hint else str(self)


class UsageError(GpurunError):
    """What was asked for makes no sense; nothing was started."""

    exit_code = 2


class ConfigError(UsageError):
    """A template, a setting or a file that the user wrote is wrong."""


class BundleError(UsageError):
    """Code or data that can't be shipped."""


class StateError(GpurunError):
    """The home directory can't be read or written."""


class LedgerError(StateError):
    """The ledger is corrupt, was written by a newer gpurun, or stayed locked."""


class JobGoneError(StateError):
    """What a run ships (its bundle, its data) is no longer there: it can be ended and collected, not started."""


class LeaseLostError(StateError):
    """Another controller took the run over; the one that gets this must touch nothing more."""


class RefusedError(GpurunError):
    """One of our own limits or guards said no; `hint` names the flag that lifts it."""

    exit_code = 4


class ProviderError(GpurunError):
    """The provider failed or refused."""


class CredentialsError(ProviderError):
    """No key, a wrong key, or one without the right; names the variable and the page."""


class NoCapacityError(ProviderError):
    """The offer can't be had right now. Nothing was rented."""


class QuotaError(ProviderError):
    """The account may not rent this. Nothing was rented."""


class UnclearError(ProviderError):
    """The reply to a launch was lost: it may bill. Never launch again before `find` has settled it."""


class UnreachableError(ProviderError):
    """No answer came. Proves nothing about what exists or bills."""


class RemoteError(ProviderError):
    """The byte plane failed while the machine may bill."""


class HostKeyError(RemoteError):
    """The machine shows another host key than the one made for it: nothing was sent to it, and it is to be ended."""


class StartError(RemoteError):
    """The job could not be started on the machine; the message is the failure's signature.

    `permanent` = it would fail the same way again, here and anywhere: not to be tried for minutes that bill.
    """

    def __init__(self, message: str, *, hint: str = "", allocation_id: str = "", permanent: bool = False) -> None:
        super().__init__(message, hint=hint, allocation_id=allocation_id)
        self.permanent = permanent


class IntegrityError(RemoteError):
    """Bytes arrived that are not the ones the manifest names."""
