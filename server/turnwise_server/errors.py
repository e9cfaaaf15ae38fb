"""Every error the server raises on purpose. It knows nothing of HTTP: `api.errors` maps these to replies.

TurnwiseError
├── ConfigurationError          the server cannot start as told; the message names the setting and the remedy
│   ├── CheckpointError         a model directory that cannot be served; names the file and the remedy
│   ├── DetectorFileError       a detector's directory that cannot be used; names the file and the remedy
│   └── PolicyError             a policy file that is wrong; names the file, the line and the reason
├── api.errors.ApiError         a refusal that only HTTP knows (keys, addresses, sizes, deadlines)
├── RequestError                the client's request is at fault
│   └── ContextLengthError      the prompt cannot fit the model's context
├── StoreError                  the database cannot be used; nothing was changed
├── RateLimitError              the key has asked for more than it may in a minute, or at the same time
└── EngineError                 the engine cannot do the work
    ├── GrammarError            a grammar that could not be followed to its end; nothing is wrong with the engine
    ├── QueueFullError          too much is waiting already; try again later
    └── EngineDeadError         the engine process has ended; the reply is lost
"""

from typing import Literal


class TurnwiseError(Exception):
    """Base of every error raised on purpose."""


class ConfigurationError(TurnwiseError):
    """The server cannot start as told; the message names the setting and the remedy."""


class CheckpointError(ConfigurationError):
    """A model directory cannot be served; the message names the file and the remedy."""


class DetectorFileError(ConfigurationError):
    """A detector's directory cannot be used; the message names the file and the remedy."""


class PolicyError(ConfigurationError):
    """A policy file is wrong; the message names the file, the line and the reason."""


class RequestError(TurnwiseError):
    """The client's request is at fault, in a way OpenAI's error object can say."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class ContextLengthError(RequestError):
    """The prompt has `prompt_tokens` tokens (or more, if `is_lower_bound`) where the model takes `context_length`."""

    def __init__(
        self,
        *,
        context_length: int,
        prompt_tokens: int,
        is_lower_bound: bool = False,
        param: str = "messages",
    ) -> None:
        super().__init__(
            f"This model's maximum context length is {context_length} tokens. However, your {param} resulted in "
            f"{'at least ' if is_lower_bound else ''}{prompt_tokens} tokens. Please reduce the length of the {param}.",
            param=param,
            code="context_length_exceeded",
        )
        self.context_length = context_length
        self.prompt_tokens = prompt_tokens


class StoreError(TurnwiseError):
    """The database cannot be used, and nothing was changed. The message is for the log: it names files and hosts."""


class RateLimitError(TurnwiseError):
    """The key reached its `limit`: requests or tokens a minute, or requests at the same time."""

    def __init__(
        self, kind: Literal["requests", "tokens", "concurrent"], *, limit: int, requested: int, wait_s: float
    ) -> None:
        super().__init__(f"{kind}: limit {limit}, requested {requested}")
        self.kind = kind
        self.limit = limit
        self.requested = requested
        self.wait_s = wait_s
        """When the same request may succeed; infinity if it is more than the limit by itself."""


class EngineError(TurnwiseError):
    """The engine cannot do the work."""


class GrammarError(EngineError):
    """A reply could not be held to its grammar any further; the request is at fault, not the engine."""


class QueueFullError(EngineError):
    """Too much is waiting already; the same request may succeed in a moment."""


class EngineDeadError(EngineError):
    """The engine process has ended; what it was generating is lost."""
