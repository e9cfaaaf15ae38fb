"""The frozen configuration of each stage: defaults, then a recipe file, then key=value from the command line."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from turnwise_training.errors import ConfigurationError

Mix = dict[str, float]


@dataclass(frozen=True)
class ModelShape:
    """A Llama architecture with tied embeddings."""

    hidden_size: int = 384
    layers: int = 6
    heads: int = 6
    kv_heads: int = 2
    intermediate_size: int = 768
    context_length: int = 2048
    rope_theta: float = 10000.0


@dataclass(frozen=True)
class Optimization:
    """Muon for the hidden matrices, AdamW for the rest, one schedule for both."""

    learning_rate: float = 3e-3
    """Peak rate of AdamW."""
    muon_learning_rate: float = 0.02
    """Peak rate of Muon; 0 trains everything with AdamW."""
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    grad_clip: float = 1.0
    warmup_share: float = 0.02
    decay_share: float = 0.3
    """The rate falls linearly to `final_share` of the peak over this last share of the steps."""
    final_share: float = 0.0


@dataclass(frozen=True)
class Phase:
    """A stretch of pretraining: `share` of all tokens in rows of `seq_len`, drawn from the mix named `mix`."""

    share: float
    seq_len: int
    mix: str


@dataclass(frozen=True)
class TokenizerConfig:
    """`turnwise-train tokenizer`."""

    output: Path
    data: Path = Path("../shared/data/permissive")
    vocab_size: int = 8192
    context_length: int = 2048
    seed: int = 1
    sources: dict[str, float] = field(default_factory=dict)
    """Megabytes of text to read of each source at most."""


@dataclass(frozen=True)
class PretrainConfig:
    """`turnwise-train pretrain`."""

    name: str
    tokenizer: Path
    output: Path
    tokens: int
    phases: tuple[Phase, ...]
    mixes: dict[str, Mix]
    """For each mix, the share of its tokens that each source gives; a source that ends begins again."""
    model: ModelShape = ModelShape()
    optimization: Optimization = Optimization()
    data: Path = Path("../shared/data/permissive")
    runs: Path = Path("runs")
    batch_tokens: int = 16384
    """Tokens an optimizer step."""
    micro_tokens: int = 4096
    """Tokens a forward pass: memory only, never changes the result."""
    eval_tokens: int = 8192
    """Held-out tokens read of each source at most."""
    drop_containing: tuple[str, ...] = ()
    seed: int = 1
    save_every: int = 200
    compile: bool = True
    precision: Literal["float32", "bfloat16"] = "bfloat16"


@dataclass(frozen=True)
class SFTConfig:
    """`turnwise-train sft`."""

    name: str
    model: Path
    """The checkpoint directory to start from."""
    output: Path
    rows: dict[str, int]
    """Rows taken of each source an epoch; a source that ends begins again. Running text is trained whole."""
    epochs: int = 2
    optimization: Optimization = Optimization(learning_rate=5e-4, muon_learning_rate=0.005, decay_share=0.9)
    data: Path = Path("../shared/data/permissive")
    runs: Path = Path("runs")
    seq_len: int = 512
    long_seq_len: int = 2048
    """Conversations over `seq_len` tokens are packed into rows of this length; longer ones are dropped and counted."""
    batch_tokens: int = 16384
    micro_tokens: int = 4096
    eval_tokens: int = 8192
    drop_containing: tuple[str, ...] = ()
    seed: int = 1
    save_every: int = 50
    compile: bool = True
    precision: Literal["float32", "bfloat16"] = "bfloat16"


StageConfig = TokenizerConfig | PretrainConfig | SFTConfig
AnyConfig = typing.TypeVar("AnyConfig", bound=StageConfig)


def load_config(kind: type[AnyConfig], recipe: Path, overrides: Sequence[str]) -> AnyConfig:
    """Return the configuration of a recipe file with `key=value` overrides (`optimization.grad_clip=0.5`).

    Raises ConfigurationError for an unknown key (naming the nearest), a missing key or a value of the wrong type.
    """
    try:
        values = yaml.safe_load(recipe.read_text())
    except FileNotFoundError:
        raise ConfigurationError(f"no recipe at {recipe}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{recipe} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{recipe}: expected keys and values at the top")
    for override in overrides:
        _override(values, override)
    return typing.cast("AnyConfig", _build(kind, values, ""))


def _override(values: dict[str, object], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals:
        raise ConfigurationError(f"{override!r} is no override; write key=value")
    *parents, key = path.split(".")
    target = values
    for parent in parents:
        child = target.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigurationError(f"{override!r}: {parent!r} holds no keys")
        target = child
    target[key] = yaml.safe_load(text)


def _build(kind: type[object], values: object, where: str) -> object:
    """Return dataclass `kind` built from a mapping; `where` is the dotted path so far."""
    if not isinstance(values, dict):
        raise ConfigurationError(f"{where.rstrip('.')!r} must hold keys and values, not {values!r}")
    fields = {f.name: f for f in dataclasses.fields(typing.cast("type[typing.Any]", kind))}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.0)
            raise ConfigurationError(f"unknown key {where + str(key)!r}; did you mean {where + near[0]!r}?")
    for name, spec in fields.items():
        required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigurationError(f"missing key {where + name!r}")
    hints = typing.get_type_hints(kind)
    return kind(**{key: _convert(hints[key], value, where + key) for key, value in values.items()})


def _convert(hint: object, value: object, where: str) -> object:
    """Return `value` as type `hint`, or raise ConfigurationError naming the key."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast("type[object]", hint), value, where + ".")
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is tuple and isinstance(value, list):
        kinds = [arguments[0]] * len(value) if arguments[1] is Ellipsis else list(arguments)
        if len(kinds) == len(value):
            return tuple(
                _convert(k, item, f"{where}[{i}]")
                for i, (k, item) in enumerate(zip(kinds, value, strict=True))
            )
    if origin is Literal and value in arguments:
        return value
    return _convert_scalar(hint, value, where)


def _convert_scalar(hint: Any, value: object, where: str) -> object:
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, str):
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    wanted = hint.__name__ if hint in (bool, int, float, str, Path) else str(hint)
    raise ConfigurationError(f"{where!r} must be {wanted}, not {value!r}")


def as_json(value: object) -> object:
    """Return a configuration as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [as_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value
