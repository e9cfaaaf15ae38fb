"""LoRA through peft: adapters trained on one frozen base, several of them on one network, and merged to be exported.

The base may be held in 4 bits (QLoRA). An adapter is also kept as peft writes it, so that it loads on its base alone.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from turnwise_training.config import Lora
from turnwise_training.errors import ConfigurationError

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

POLICY, VALUE = "policy", "value"
"""The names of adapters: one that writes answers, and one that scores them."""
ADAPTER = "adapter"
"""The folder, inside an exported checkpoint, of the adapter that was merged into it."""
_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."


def quantization(lora: Lora | None) -> dict[str, Any]:
    """Return what `from_pretrained` needs to hold the base as `lora` says; raises ConfigurationError without a GPU."""
    if lora is None or lora.quantize == "none":
        return {}
    if not torch.cuda.is_available():
        raise ConfigurationError("lora.quantize: nf4 needs a CUDA GPU; set lora.quantize: none")
    if find_spec("bitsandbytes") is None:
        raise ConfigurationError("lora.quantize: nf4 needs bitsandbytes: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["lm_head", "score"],
    )
    return {"quantization_config": four_bits}


def add_adapter(model: PreTrainedModel, lora: Lora, name: str, *, seed: int) -> nn.Module:
    """Freeze a model and put a fresh adapter on it, which changes nothing yet; return the adapter's own weights.

    Raises ConfigurationError where peft is not installed or `lora.targets` are not in the model.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise ConfigurationError("lora needs peft: pip install 'turnwise[lora]'") from None
    for parameter in model.parameters():
        parameter.requires_grad_(requires_grad=False)
    torch.manual_seed(seed)
    settings = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets))
    try:
        with warnings.catch_warnings():
            # Several adapters on one base are what PPO wants.
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute", UserWarning)
            model.add_adapter(settings, name)
    except ValueError as error:
        raise ConfigurationError(
            f"lora.targets {list(lora.targets)!r} do not fit the model: {error}"
        ) from None
    turn_to(model, name)
    return adapter_weights(model, name)


def kept_settings(folder: Path) -> Lora:
    """Return the settings of an adapter that `save_adapter` wrote."""
    from peft import LoraConfig

    saved = LoraConfig.from_pretrained(folder)
    return Lora(rank=saved.r, alpha=saved.lora_alpha, targets=tuple(sorted(saved.target_modules)))


def adapter_weights(model: nn.Module, name: str) -> nn.Module:
    """Return the weights of one adapter as a module, to be optimised, saved and loaded without the base."""
    parts = [part for _, layer in _layers(model) for part in (layer.lora_A, layer.lora_B)]
    return nn.ModuleList([part[name] for part in parts if name in part])


def turn_to(model: nn.Module, name: str | None) -> None:
    """Let a model run with one of its adapters, or with none; all of them go on taking gradients.

    peft by itself freezes the adapters it turns away from, and a frozen weight loses the gradient of a loss that is
    still to be differentiated.
    """
    for _, layer in _layers(model):
        layer.enable_adapters(name is not None)
        if name is not None:
            layer.set_adapter(name)
        layer.lora_A.requires_grad_()
        layer.lora_B.requires_grad_()


@contextmanager
def turned_to(model: nn.Module, name: str | None) -> Iterator[None]:
    """Let a model run with another of its adapters, or with none, for a while; then with the policy's again."""
    turn_to(model, name)
    try:
        yield
    finally:
        turn_to(model, POLICY)


def merged(
    model: nn.Module, weights: Mapping[str, Tensor], name: str, *, base: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return a model's whole `weights`, one adapter added to the base, under a plain model's names.

    A model without adapters gives its weights as they are. `base` are the plain weights of a model that holds them in
    4 bits.
    """
    held = {key.replace(".base_layer", ""): value for key, value in weights.items() if ".lora_" not in key}
    plain = held if base is None else dict(base)
    for path, layer in _layers(model):
        if name not in layer.scaling:
            continue
        low, high = (weights[f"{path}.lora_{part}.{name}.weight"] for part in "AB")
        delta = layer.scaling[name] * (high @ low)
        delta = delta.T if layer.fan_in_fan_out else delta
        plain[f"{path}.weight"] = plain[f"{path}.weight"] + delta.to(plain[f"{path}.weight"].device)
    return plain


def is_quantized(model: nn.Module) -> bool:
    """Tell whether a model holds its base in 4 bits."""
    return bool(getattr(model, "is_quantized", False))  # transformers sets it on quantized models alone


def save_adapter(model: PreTrainedModel, weights: Mapping[str, Tensor], name: str, folder: Path) -> None:
    """Write one adapter, out of the model's whole `weights`, in peft's format; nothing where there is none."""
    if not any(_layers(model)):
        return
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, state_dict=dict(weights), adapter_name=name)
    folder.mkdir()
    save_file({_PREFIX + key: value.contiguous() for key, value in state.items()}, folder / _FILE)
    model.peft_config[name].save_pretrained(folder)


def load_adapter(model: PreTrainedModel, name: str, folder: Path) -> None:
    """Fill an adapter with one that `save_adapter` wrote; raises ConfigurationError where it does not fit."""
    state = {key.removeprefix(_PREFIX): value for key, value in load_file(folder / _FILE).items()}
    wanted = {
        f"{path}.lora_{part}.weight": parts[name].weight
        for path, layer in _layers(model)
        for part, parts in (("A", layer.lora_A), ("B", layer.lora_B))
        if name in parts
    }
    if {key: value.shape for key, value in state.items()} != {k: w.shape for k, w in wanted.items()}:
        raise ConfigurationError(
            f"{folder} has other targets or another rank; set lora.targets and lora.rank to its"
        )
    with torch.no_grad():
        for key, weight in wanted.items():
            weight.copy_(state[key])


def _layers(model: nn.Module) -> Iterator[tuple[str, "LoraLayer"]]:
    """Yield every layer that carries adapters, with its path; peft is not needed where there is none."""
    for path, module in model.named_modules():
        if isinstance(getattr(module, "lora_A", None), nn.ModuleDict):
            yield path, cast("LoraLayer", module)
