"""The one exception tree. It knows no engine: a reason, an instruction, a stable code, an exit code.

```
CoevalError                 what happened (reason), what to do (instruction)
├── UsageError              exit 2   the caller or the configuration is wrong
│   ├── CatalogError                 a definition cannot be compiled
│   ├── ManifestError                a manifest is missing, unreadable or of another schema
│   ├── UnknownFeatureError          a service, view or feature name is not in the manifest
│   ├── EntityKeyError               an entity key is missing, null or of the wrong type
│   ├── RequestError                 a request-time input is missing or of the wrong type
│   ├── EventError                   an event would be rejected
│   ├── AccessError                  a credential is missing, or does not grant what is asked for
│   ├── LimitError                   more is asked for than is allowed; later, or less
│   ├── LetGoError                   what is asked for would need events that were let go
│   ├── NeedsSparkError              what is asked for cannot be computed without Spark
│   └── MissingExtraError            an optional part of coeval is not installed
├── InfrastructureError     exit 3   a component is not there, or does not answer
│   ├── StackError                   the local stack cannot start, stop or be read
│   ├── StoreError                   the online store refuses or does not answer
│   ├── BrokerError                  the Kafka broker refuses or does not answer
│   └── EngineError                  Flink or Spark failed
└── CheckFailedError        exit 1   a check was made and failed (parity, quality, drift)
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class CoevalError(Exception):
    """Root of every error that a user of Coeval is meant to read.

    `reason` says what happened, `instruction` says what to type or change; `code` is stable across releases.
    """

    code = "COEVAL"
    exit_code = 3

    def __init__(self, reason: str, instruction: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.instruction = instruction

    def __str__(self) -> str:
        return f"{self.reason}\n  -> {self.instruction}" if self.instruction else self.reason


class UsageError(CoevalError):
    """The caller or the configuration is wrong."""

    code = "USAGE"
    exit_code = 2


class CatalogError(UsageError):
    """A definition in the feature repository cannot be compiled."""

    code = "CATALOG"


class ManifestError(UsageError):
    """A manifest is missing, unreadable or written in another schema version."""

    code = "MANIFEST"


class UnknownFeatureError(UsageError):
    """A service, view or feature name is not in the manifest."""

    code = "UNKNOWN_FEATURE"


class EntityKeyError(UsageError):
    """An entity key is missing, null or of the wrong type."""

    code = "ENTITY_KEY"


class RequestError(UsageError):
    """A request-time input is missing or of the wrong type."""

    code = "REQUEST"


class EventError(UsageError):
    """Events would be rejected by the validity rules. `details` says which, and why."""

    code = "EVENT"

    def __init__(self, reason: str, instruction: str = "", details: Sequence[Mapping[str, object]] = ()) -> None:
        super().__init__(reason, instruction)
        self.details = details


class AccessError(UsageError):
    """A credential does not grant what is asked for: `what` is its name."""

    code = "ACCESS"

    def __init__(self, reason: str, instruction: str = "", what: str = "") -> None:
        super().__init__(reason, instruction)
        self.what = what


class CredentialError(AccessError):
    """A credential is missing, unknown or expired."""

    code = "CREDENTIAL"


class LimitError(UsageError):
    """More is asked for at once than is allowed. `retry_after` is in seconds; 0: it is too much at any time."""

    code = "LIMIT"

    def __init__(self, reason: str, instruction: str = "", retry_after: float = 0.0) -> None:
        super().__init__(reason, instruction)
        self.retry_after = retry_after


class LetGoError(UsageError):
    """What is asked for would need events that were let go of a log."""

    code = "LET_GO"


class NeedsSparkError(UsageError):
    """What is asked for cannot be computed without Spark, and was to be."""

    code = "NEEDS_SPARK"


class MissingExtraError(UsageError):
    """An optional part of Coeval is not installed."""

    code = "MISSING_EXTRA"


class InfrastructureError(CoevalError):
    """A component is not there, or does not answer."""

    code = "INFRASTRUCTURE"
    exit_code = 3


class StackError(InfrastructureError):
    """The local stack cannot start, stop or be read."""

    code = "STACK"


class StoreError(InfrastructureError):
    """The online store refuses or does not answer."""

    code = "STORE"


class BrokerError(InfrastructureError):
    """The Kafka broker refuses or does not answer."""

    code = "BROKER"


class EngineError(InfrastructureError):
    """Flink or Spark failed."""

    code = "ENGINE"


class CheckFailedError(CoevalError):
    """A check was made and failed."""

    code = "CHECK_FAILED"
    exit_code = 1
