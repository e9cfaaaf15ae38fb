"""Every setting of the server, in one frozen class. Where their values come from is `config_sources`' business.

The string under each field is its `--help` text and must stand in docs/configuration.md. A field that holds a
`SecretStr` is a secret everywhere: no flag, never printed, and readable from a file that `TURNWISE_<NAME>_FILE` names.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from turnwise_server.config_types import NamedPaths, Names, Origins, Secrets, holds_secret
from turnwise_server.limits.rates import MAX_RATE

STARTER_MODEL = Path(__file__).parent / "starter"
ENV_PREFIX = "TURNWISE_"


class Settings(BaseSettings):
    """How one server runs; frozen, validated once at the start."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    model: str = str(STARTER_MODEL)
    """Model to serve: a directory with a Hugging Face causal language model, or a name on the Hugging Face hub. Default: the starter model that ships with Turnwise."""  # noqa: E501
    model_name: str | None = Field(default=None, min_length=1)
    """The model id that clients send and see. Default: the last part of the model's path."""
    models: NamedPaths = {}
    """More models to serve, each under a name of its own: NAME=PATH, with commas between them; in the configuration file a table [models]."""  # noqa: E501
    allow_default_model: bool = False
    """Answer requests that name no model with the one of --model, in place of an error."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but a loopback address needs API keys, or --insecure."""
    port: int = Field(default=8000, ge=0, le=65535)
    """TCP port to listen on; 0 takes a free one and says which."""
    engine: Literal["torch", "fake"] = "torch"
    """What generates: torch runs the model; fake plays scripted replies and needs only the model's tokenizer."""
    fake_script: Path | None = None
    """JSON file for the fake engine: {"replies": ["Hello!"], "token_delay_ms": 20, "prefill_delay_ms": 0}."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda or cuda:N."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights."""
    quantization: Literal["none", "int8"] = "none"
    """int8 keeps the weights as 8-bit integers, rounded while the model loads: half the memory, and on a CPU faster for few replies at a time. Not on GPUs."""  # noqa: E501
    threads: int | None = Field(default=None, ge=1)
    """CPU threads the engine computes with. Default: one for each physical core."""
    context_length: int | None = Field(default=None, ge=16)
    """Longest prompt plus reply, in tokens. Default: what the model was made for."""
    max_batch: int = Field(default=32, ge=1)
    """Most replies generated at the same time; more wait in the queue."""
    max_queued_requests: int = Field(default=64, ge=0)
    """Most replies that may wait; beyond it the server answers 503 with a retry-after header."""
    max_queued_tokens: int | None = Field(default=None, ge=1)
    """Most prompt tokens that may wait. Default: eight times the context length."""
    kv_memory_mb: int | None = Field(default=None, ge=1)
    """Memory for the attention cache, in MiB. Default: what it can ever use, up to 30% of the free memory, or 80% of a GPU's."""  # noqa: E501
    prefill_chunk: int = Field(default=512, ge=1)
    """Most prompt tokens the engine reads in one step, so that long prompts do not stall running replies."""
    truncation: Literal["auto", "disabled"] = "auto"
    """What happens to a conversation that is too long: auto drops the oldest turns and says so in the reply, disabled refuses it. A request can choose for itself."""  # noqa: E501
    default_max_tokens: int = Field(default=1024, ge=1)
    """Length limit of a reply, in tokens, when the request names none. Never more than the context has room for."""
    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    """Largest request body; beyond it the server answers 413."""
    strict_params: bool = False
    """Refuse parameters that the server does not know, in place of ignoring them and naming them in a header."""
    max_messages: int = Field(default=2048, ge=1)
    """Most messages in one request."""
    request_timeout_s: float = Field(default=600.0, gt=0)
    """Deadline of one request, in seconds."""
    drain_timeout_s: float = Field(default=30.0, ge=0)
    """How long running replies may take to finish after SIGTERM or Ctrl-C, in seconds."""
    ping_interval_s: float = Field(default=15.0, gt=0)
    """A stream that was silent for this long sends a comment, so that no proxy cuts it, in seconds."""
    send_timeout_s: float = Field(default=30.0, gt=0)
    """A client that takes nothing for this long is cut off, so that it holds no place in the engine, in seconds."""
    api_keys_file: Path | None = None
    """File with one key hash a line, made by `turnwise-server hash-key`. With keys set every route but /health and /ready needs one."""  # noqa: E501
    api_keys: Secrets = ()
    """API keys in plain text, separated by commas. Only by the environment or the configuration file, never as a flag."""  # noqa: E501
    rate_limit_rpm: int | None = Field(default=None, ge=1, le=MAX_RATE)
    """Most requests a minute of one key, unless its line in the key file says otherwise. Without keys: of all clients together. Default: no limit."""  # noqa: E501
    rate_limit_tpm: int | None = Field(default=None, ge=1, le=MAX_RATE)
    """Most tokens a minute, of prompts and replies, likewise. Default: no limit."""
    rate_limit_concurrent: int | None = Field(default=None, ge=1, le=MAX_RATE)
    """Most requests at the same time, likewise. Default: no limit."""
    redis_url: SecretStr | None = None
    """Address of a Redis server, such as redis://localhost:6379/0, where several replicas of the server count rate limits together. Only by the environment or the configuration file, never as a flag. Default: each counts for itself."""  # noqa: E501
    policy: Path | None = None
    """Policy file: what the assistant refuses and how it says so. A change of it takes effect while the server runs. Default: the policy that ships with Turnwise."""  # noqa: E501
    unsafe_no_classifier: bool = False
    """Serve without the refusal layer: nothing is checked, and every reply says so in the header x-moderation."""
    insecure: bool = False
    """Listen on other than loopback addresses without any API key."""
    allowed_hosts: Names = ()
    """More names, separated by commas, that a Host header may carry while the server listens on a loopback address: set it behind a reverse proxy that keeps the public name."""  # noqa: E501
    cors_allowed_origins: Origins = ()
    """Origins of web pages, separated by commas, that may use this server from a browser, such as https://chat.example. Default: none but this machine's own, and without CORS headers."""  # noqa: E501
    database_url: SecretStr | None = None
    """Where stored completions and responses are kept: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME. Default: a SQLite file in the user's data directory, made when something is stored for the first time."""  # noqa: E501
    response_ttl_s: float = Field(default=3600.0, gt=0)
    """How long a response can be read and continued whose request did not ask to store it, in seconds. It is kept in memory only."""  # noqa: E501
    response_memory_mb: int = Field(default=64, ge=1)
    """Memory for responses whose requests did not ask to store them, in MiB; the oldest go first."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe entries to log. Each request is one JSON line on stderr at level info."""
    otlp_endpoint: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """Base address of an OpenTelemetry collector that takes spans by OTLP over HTTP, such as http://127.0.0.1:4318; needs the extra tracing. Default: what OTEL_EXPORTER_OTLP_ENDPOINT says, else no spans."""  # noqa: E501

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if self.served_model_name in self.models:
            raise ValueError(
                f"two models are called {self.served_model_name!r}: rename one with --model-name or --models"
            )
        return self

    @property
    def served_model_name(self) -> str:
        """The model id on the wire."""
        return self.model_name or Path(self.model).name or Path(self.model).resolve().name

    @property
    def named_models(self) -> dict[str, str]:
        """What to serve under which name, the default model first."""
        return {self.served_model_name: self.model} | self.models

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


SECRET_FIELDS = frozenset(
    field for field, info in Settings.model_fields.items() if holds_secret(info.annotation)
)
"""Settings that are never flags: what stands on a command line is seen by every user of the machine."""


def flag_name(field: str) -> str:
    """Return the command-line flag of a setting."""
    return "--" + field.replace("_", "-")


def variable_name(field: str) -> str:
    """Return the environment variable of a setting."""
    return ENV_PREFIX + field.upper()
