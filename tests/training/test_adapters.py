"""LoRA: one frozen base under every adapter, exact resume, and exports that load with and without peft."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from support.training_processes import FSDP2, run_stage, together
from support.training_states import CutError, assert_equal, cut_after, final_state
from turnwise_training.adapters import POLICY, VALUE, add_adapter, merged, quantization, turn_to, turned_to
from turnwise_training.config import Lora, PPOConfig
from turnwise_training.episodes import Answers, lay_out
from turnwise_training.errors import ConfigurationError
from turnwise_training.lora_actors import LoraActors, build_lora_actors
from turnwise_training.models import answer_logits, load_model, load_reward_model, token_scores
from turnwise_training.parallel import Parallel
from turnwise_training.recipe import load_config

LORA = ["lora.rank=4", "lora.alpha=8"]
SETTINGS = {
    "sft": [*LORA, "optimization.muon_learning_rate=0", "optimization.learning_rate=0.01", "epochs=1"],
    # A fresh adapter's gradients are so small that AdamW would blow their rounding up with a smaller eps.
    "reward": [*LORA, "epochs=1", "optimization.eps=0.0001"],
    "ppo": [*LORA, "policy.learning_rate=0.01", "value.learning_rate=0.01"],
}
ANSWERS = lay_out([[5, 6, 7], [8]], [[9, 10], [11, 12, 13]], pad_id=1)


@pytest.fixture
def recipes(
    tmp_path: Path, base_checkpoint: Path, sft_recipe: Path, reward_recipe: Path, ppo_recipe: Path
) -> dict[str, Path]:
    """Every stage's recipe on one base."""
    (tmp_path / "pretrained").symlink_to(base_checkpoint)
    return {"sft": sft_recipe, "reward": reward_recipe, "ppo": ppo_recipe}


def adapted(base: Path) -> PreTrainedModel:
    """Return the base with two adapters that have learnt something."""
    model = load_model(base).eval()
    for seed, name in enumerate((VALUE, POLICY)):
        weights = add_adapter(model, Lora(rank=4), name, seed=seed)
        with torch.no_grad():
            for weight in weights.parameters():
                weight.normal_(std=0.1)
    return model


def logits(model: PreTrainedModel, answers: Answers = ANSWERS) -> torch.Tensor:
    with torch.no_grad():
        return answer_logits(model, answers.tokens, answers.attend, answer_width=answers.width)


def test_20_a_model_without_its_adapters_is_the_base_bit_for_bit(base_checkpoint: Path) -> None:
    model, base = adapted(base_checkpoint), load_model(base_checkpoint).eval()
    assert not torch.equal(logits(model), logits(base))
    with turned_to(model, None):
        assert torch.equal(logits(model), logits(base))
    kept = {name.replace(".base_layer", ""): weight for name, weight in model.state_dict().items()}
    for name, weight in base.state_dict().items():
        assert torch.equal(kept[name], weight)


def test_each_adapter_gets_its_gradient_when_one_loss_runs_both(base_checkpoint: Path) -> None:
    model = adapted(base_checkpoint)
    both = answer_logits(model, ANSWERS.tokens, ANSWERS.attend, answer_width=3).square().mean()
    with turned_to(model, VALUE):
        both = both + answer_logits(model, ANSWERS.tokens, ANSWERS.attend, answer_width=3).square().mean()
    with turned_to(model, None):
        logits(model)
    both.backward()  # type: ignore[no-untyped-call]
    graded = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert graded == {name for name, _ in model.named_parameters() if ".lora_" in name}
    assert len(graded) == 2 * 2 * 7 * 2


@pytest.mark.parametrize("name", [POLICY, VALUE])
def test_merged_weights_give_the_adapters_logits(name: str, base_checkpoint: Path) -> None:
    model, plain = adapted(base_checkpoint), load_model(base_checkpoint).eval()
    turn_to(model, name)
    plain.load_state_dict(merged(model, model.state_dict(), name))
    torch.testing.assert_close(logits(plain), logits(model), atol=1e-5, rtol=1e-5)


def test_an_adapter_of_a_base_in_four_bits_is_merged_into_the_plain_base(base_checkpoint: Path) -> None:
    model, plain = adapted(base_checkpoint), load_model(base_checkpoint)
    weights = model.state_dict()
    packed = {key: torch.zeros(1, dtype=torch.uint8) for key in weights if ".base_layer." in key}
    state_of_packing = {f"{key}.absmax": torch.ones(1) for key in packed}
    four_bits = merged(model, {**weights, **packed, **state_of_packing}, POLICY, base=plain.state_dict())
    assert_equal(four_bits, dict(merged(model, weights, POLICY)))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks it
def test_an_exported_adapter_loads_by_peft_on_the_base_and_equals_the_merged_model(
    tmp_path: Path, recipes: dict[str, Path]
) -> None:
    run_stage("sft", recipes["sft"], *SETTINGS["sft"])
    base = load_model(tmp_path / "pretrained").eval()
    plain = logits(base)
    own = logits(PeftModel.from_pretrained(base, tmp_path / "sft/adapter").eval())
    merged_model = load_model(tmp_path / "sft").eval()
    assert float((own - plain).abs().max()) > 0.05
    torch.testing.assert_close(logits(merged_model), own, atol=0.01, rtol=0.01)  # exported in bfloat16


def test_only_the_adapter_is_saved(tmp_path: Path, recipes: dict[str, Path]) -> None:
    run_stage("sft", recipes["sft"], *SETTINGS["sft"])
    saved = final_state(tmp_path / "runs/sft")["model"]
    assert (
        sum(weight.numel() for weight in saved.values()) < 0.5 * load_model(tmp_path / "sft").num_parameters()
    )


@pytest.mark.parametrize("stage", SETTINGS)
def test_28_a_cut_run_with_an_adapter_resumes_bit_equal(
    stage: str, tmp_path: Path, recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = [] if stage == "ppo" else ["epochs=2"]
    settings = [*SETTINGS[stage], *epochs, "save_every=2"]
    run_stage(stage, recipes[stage], "name=whole", *settings)
    with monkeypatch.context() as context:
        cut_after(context, 3 if stage != "ppo" else 14)
        with pytest.raises(CutError):
            run_stage(stage, recipes[stage], "name=cut", *settings)
    assert final_state(tmp_path / "runs/cut")["step"] == 2
    run_stage(stage, recipes[stage], "name=cut", *settings)
    assert_equal(final_state(tmp_path / "runs/cut"), final_state(tmp_path / "runs/whole"))
    assert (tmp_path / "runs/cut/log.jsonl").read_text() == (tmp_path / "runs/whole/log.jsonl").read_text()


def ppo_actors(recipe: Path, *overrides: str) -> LoraActors:
    config = load_config(PPOConfig, recipe, [*SETTINGS["ppo"], *overrides])
    assert config.lora is not None
    return build_lora_actors(config, config.lora, Parallel())


def test_20_ppo_moves_its_adapters_and_neither_base_nor_reference(
    tmp_path: Path, recipes: dict[str, Path]
) -> None:
    run_stage("ppo", recipes["ppo"], *SETTINGS["ppo"])
    saved = final_state(tmp_path / "runs/ppo")
    actors = ppo_actors(recipes["ppo"])
    base = load_model(tmp_path / "base").eval()
    assert torch.equal(actors.policy_logits(ANSWERS), actors.reference_logits(ANSWERS))
    actors.policy.load_state_dict(saved["policy"])
    actors.value.load_state_dict(saved["value"])
    assert not torch.equal(actors.policy_logits(ANSWERS), actors.reference_logits(ANSWERS))
    assert torch.equal(actors.reference_logits(ANSWERS), logits(base))
    assert bool(actors.values(ANSWERS).any())
    first = json.loads((tmp_path / "runs/ppo/log.jsonl").read_text().splitlines()[1])
    assert first["kl_k1"] == 0


def test_the_value_function_starts_as_the_reward_model(tmp_path: Path, recipes: dict[str, Path]) -> None:
    run_stage("reward", recipes["reward"], *SETTINGS["reward"])
    actors = ppo_actors(recipes["ppo"], f"value_model={tmp_path}/reward", "lora.rank=2")
    reward = load_reward_model(tmp_path / "reward")
    expected = token_scores(reward, ANSWERS.tokens, ANSWERS.attend)[:, -4:-1]
    torch.testing.assert_close(actors.values(ANSWERS), expected, atol=1e-5, rtol=1e-5)
    assert bool(expected.any())


def test_a_value_model_on_another_base_is_refused(tmp_path: Path, recipes: dict[str, Path]) -> None:
    run_stage("reward", recipes["reward"], "epochs=1")
    with pytest.raises(ConfigurationError, match="train the reward model on it with `lora`"):
        ppo_actors(recipes["ppo"], f"value_model={tmp_path}/reward")
    run_stage("reward", recipes["reward"], *SETTINGS["reward"], "name=adapter")
    model = load_model(tmp_path / "base")
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] += 1
    model.save_pretrained(tmp_path / "base")
    with pytest.raises(ConfigurationError, match="is no adapter on"):
        ppo_actors(recipes["ppo"], f"value_model={tmp_path}/reward")


@pytest.mark.parametrize("layout", [pytest.param({}, id="whole"), pytest.param(FSDP2, id="fsdp2")])
@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_31_32_two_processes_train_the_adapter_of_one(
    stage: str, layout: dict[str, str], tmp_path: Path, recipes: dict[str, Path]
) -> None:
    settings = [*SETTINGS[stage], "precision=float32"]
    run_stage(stage, recipes[stage], "name=one", *settings)
    assert together(run_stage, stage, recipes[stage], "name=two", *settings, environment=layout) == [0, 0]
    one, two = (final_state(tmp_path / "runs" / name)["model"] for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimization.muon_learning_rate=0.01"], "set muon_learning_rate: 0"),
        (["lora.targets=[c_attn]"], "do not fit the model"),
        (["lora.quantize=nf4"], "needs a CUDA GPU"),
    ],
)
def test_settings_that_cannot_run_are_refused_by_name(
    overrides: list[str], message: str, recipes: dict[str, Path]
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run_stage("sft", recipes["sft"], *SETTINGS["sft"], *overrides)


def test_nf4_without_bitsandbytes_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigurationError, match="pip install bitsandbytes"):
        quantization(Lora(quantize="nf4"))
