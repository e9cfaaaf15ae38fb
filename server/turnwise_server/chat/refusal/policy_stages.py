"""How the server carries the policy out: its detectors, its stages, and what it writes down."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from turnwise_server.chat.refusal.policy_types import Id, Part, Phrases, Sha256, Stage, Text

MIN_HOLD_CHARS: Final = 40


class Condition(Part):
    """When a slow detector is worth asking."""

    unsure: Id
    """The detector that decides: the slow one is asked where its score of some category reaches `review`, and then judges in its place."""  # noqa: E501


class Detector(Part):
    """Something that scores texts. Which keys it needs depends on its kind."""

    id: Id
    """Its name, in the audit and the metrics."""
    kind: Literal["hf_sequence_classification", "hf_causal_guard", "http", "phrases"]
    """`hf_sequence_classification`: a classifier directory; `hf_causal_guard`: a model like Llama Guard; `http`: a server with OpenAI's `/v1/moderations`; `phrases`: a list of phrases."""  # noqa: E501
    stage: tuple[Stage, ...] = Field(default=("input", "output"), min_length=1)
    """What it scores."""
    deadline_ms: int = Field(default=800, ge=1, le=60_000)
    """How long it may take for four windows of a text, in milliseconds; then it counts as failed."""
    when: Condition | None = None
    """When it is asked. Default: always."""
    path: Text | None = None
    """For the two `hf_` kinds: the model's directory; `builtin:safety` is the detector that ships with Turnwise."""
    sha256: Sha256 | None = None
    """For the two `hf_` kinds: the SHA-256 of model.safetensors; another file is refused."""
    labels: dict[str, Id] | None = None
    """For `hf_sequence_classification`: the category each of its labels means. Default: they are OpenAI's names."""
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | None = None
    """For `http`: the base address, such as http://127.0.0.1:9000/v1."""
    model: Text | None = None
    """For `http`: the name of the model to ask for."""
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None
    """For `http`: the environment variable that holds the key. Default: none is sent."""
    phrases: Phrases | None = None
    """For `phrases`: by category, phrases that score 1 where they stand as whole words, whatever their case."""


class Normaliser(Part):
    """What is undone before a text is scored, so that disguises do not help."""

    nfkc: bool = True
    """Fold fullwidth and other compatibility characters, as Unicode's NFKC does."""
    strip_invisible: bool = True
    """Drop zero-width, bidirectional, tag and stacked combining characters."""
    confusables: bool = True
    """Read letters of other alphabets as Latin ones in words that mix alphabets."""
    collapse_spacing: bool = True
    """Join letters that are spaced or dotted apart."""
    leet: bool = True
    """Also score the text with digits and signs read as letters."""
    decode: tuple[Literal["base64", "hex", "rot13", "url", "reversed"], ...] = (
        "base64",
        "hex",
        "rot13",
        "url",
        "reversed",
    )
    """Also score what decodes to readable text."""
    max_decoded: int = Field(default=4, ge=0, le=32)
    """Most decoded pieces of a message that are scored."""


class InputStage(Part):
    """Which texts of a request are scored."""

    window_chars: int = Field(default=1200, ge=100, le=100_000)
    """Length of the windows that long texts are scored in, in characters."""
    overlap: int = Field(default=200, ge=0)
    """Characters that neighbouring windows share."""
    join_user_turns: int = Field(default=6, ge=1, le=100)
    """How many of the last user messages are also scored as one text, so that what is split over turns is seen."""
    check_client_assistant: bool = True
    """Whether assistant messages that the client sends are scored: it may have forged them."""
    check_client_system: bool = True
    """Whether system messages that the client sends are scored."""


class OutputStage(Part):
    """How replies are checked while they are streamed."""

    mode: Literal["full", "hold_back", "async"] = "hold_back"
    """`full`: nothing is sent before the whole reply passed; `hold_back`: no character is sent before it passed; `async`: all is sent at once and judged after, so harm can be seen."""  # noqa: E501
    stride_chars: int = Field(default=160, ge=16, le=10_000)
    """Characters between checks; the first ones come sooner, after 40 and 80."""
    hold_chars: int = Field(default=80, ge=MIN_HOLD_CHARS, le=10_000)
    """Characters at the end that wait for the next check; no fewer than a phrase of a `phrases` detector has."""
    context_chars: int = Field(default=600, ge=100, le=100_000)
    """Characters that one check reads; at least `stride_chars` and `hold_chars` together."""


class Leak(Part):
    """How replies that repeat the system prompt are recognised."""

    canary: bool = True
    """Put a random word into the system prompt, and stop a reply that says it."""
    system_ngram: int = Field(default=12, ge=4, le=100)
    """Length of the word sequences that reply and system prompt are compared by, in words."""
    min_overlap: float = Field(default=0.5, gt=0, le=1)
    """The share of such sequences that a stretch twice as long may have in common with the system prompt."""
    action: Literal["annotate", "block"] = "block"
    """What happens then; as for the categories."""


class RefusalStyle(Part):
    """Where a refusal stands in a reply."""

    style: Literal["content", "field", "both"] = "content"
    """`content`: as the reply's text; `field`: in `refusal`, as OpenAI does, which some clients do not show; `both`."""
    reveal_category: bool = True
    """Whether `x-refusal` names the category; else it says `policy`."""


class Override(Part):
    """Who may be answered all the same."""

    allow_scopes: tuple[Text, ...] = ()
    """Scopes of API keys whose requests pass; each passing is in the audit. Default: nobody's."""
    require_reason: bool = True
    """Whether the request must say why, in the header `x-safety-reason`."""
    never: tuple[Id, ...] = ()
    """Categories that nobody overrides."""


class Audit(Part):
    """Where decisions are recorded."""

    path: Text = "audit.jsonl"
    """The file; a relative path begins in the server's data directory."""
    content: Literal["hash", "full"] = "hash"
    """`hash`: the digest of a judged text; `full`: the text itself, for `retention_days`."""
    retention_days: int | None = Field(default=None, ge=1)
    """How long files with texts are kept; must be given with `content: full`."""
    rotate_mb: int = Field(default=256, ge=1)
    """Size from which a new file is begun, in MiB; the chain goes on."""
    on_error: Literal["closed", "open"] = "closed"
    """Where nothing can be written, as on a full disk: `closed` gives error 503, `open` counts what is lost."""
