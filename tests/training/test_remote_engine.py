"""Rollouts of a server outside this process: the wire, the weights, and the same training from the same tokens."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx2
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from support.fake_vllm import FakeVLLM, fake_vllm
from support.tiny_models import tiny_model
from support.tiny_ppo import END_IDS, tiny_actors, tiny_engine, tiny_learner, tiny_prompts
from turnwise_training import remote_engine
from turnwise_training.chat import Encoder
from turnwise_training.config import ModelShape
from turnwise_training.errors import RunError
from turnwise_training.losses import chosen_log_probs
from turnwise_training.models import new_model
from turnwise_training.parallel import Parallel
from turnwise_training.remote_engine import RemoteEngine
from turnwise_training.rollout import rollout_key
from turnwise_training.tokenizer import save_tokenizer

PROMPTS = [prompt.ids for prompt in tiny_prompts(4)]
KEYS = [rollout_key(1, 0, row) for row in range(4)]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_engine, "WAITS_S", (0.0, 0.0, 0.0))


@pytest.fixture
def server() -> Iterator[FakeVLLM]:
    """A fake server that begins with other weights than the policy's."""
    with fake_vllm(tiny_model("llama", seed=9)) as fake:
        yield fake


def engine_at(url: str, folder: Path, policy: PreTrainedModel | None = None) -> RemoteEngine:
    return RemoteEngine(
        policy or tiny_model("llama"),
        Parallel(),
        url=url,
        weights=folder / "engine",
        dtype=torch.float32,
        end_ids=END_IDS,
        concurrency=2,
    )


def test_35_a_remote_engine_and_the_one_in_this_process_give_the_same_training(
    server: FakeVLLM, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    actors = tiny_actors("llama")
    remote = tiny_learner(Encoder(tokenizer), actors=actors)
    remote.engine = engine_at(server.url, tmp_path, actors.policy)
    local = tiny_learner(Encoder(tokenizer), actors=tiny_actors("llama"))
    for iteration in range(2):
        (figures, episodes), (others, answers) = local.iterate(iteration), remote.iterate(iteration)
        assert [each.sample.ids for each in answers] == [each.sample.ids for each in episodes]
        assert others.pop("engine_gap") == pytest.approx(figures.pop("engine_gap"), abs=1e-5)
        assert others == figures
    for left, right in zip(local.actors.policy.parameters(), actors.policy.parameters(), strict=True):
        assert torch.equal(left, right)


def test_the_server_has_the_policy_from_the_start_and_after_each_update(
    server: FakeVLLM, tmp_path: Path
) -> None:
    policy = tiny_model("llama")
    engine = engine_at(server.url, tmp_path, policy)

    def same() -> bool:
        mine = tiny_engine(policy).sample(PROMPTS, KEYS, max_new_tokens=6, temperature=1.0)
        theirs = engine.sample(PROMPTS, KEYS, max_new_tokens=6, temperature=1.0)
        return [sample.ids for sample in mine] == [sample.ids for sample in theirs]

    assert same()
    with torch.no_grad():
        policy.lm_head.weight.copy_(policy.lm_head.weight.flip(0))
    assert not same()
    engine.refresh(policy)
    assert same()
    assert server.paths().count("/reset_prefix_cache") == 2
    loaded = [body["kwargs"]["weights_path"] for path, body in server.calls if path == "/collective_rpc"]
    assert len(set(loaded)) == 2
    assert [str(path) for path in (tmp_path / "engine").iterdir()] == loaded[1:]


def test_what_is_asked_of_the_server_is_all_it_needs_to_sample_the_whole_softmax(
    server: FakeVLLM, tmp_path: Path
) -> None:
    engine = engine_at(server.url, tmp_path)
    samples = engine.sample(PROMPTS, KEYS, max_new_tokens=5, temperature=0.7)
    bodies = {body["seed"]: body for path, body in server.calls if path == "/v1/completions"}
    assert set(bodies) == set(KEYS)
    body = bodies[KEYS[2]]
    assert (body["prompt"], body["max_tokens"], body["temperature"]) == (PROMPTS[2], 5, 0.7)
    assert body["stop_token_ids"] == sorted(END_IDS)
    assert all(sample.ended == (sample.ids[-1] in END_IDS) for sample in samples)
    assert {sample.ended for sample in samples} == {True, False}
    assert all(0 <= key < 2**63 for key in KEYS)  # what vLLM takes as a seed


@pytest.mark.parametrize("failures", [[503, 500], [0], [500, 0]])
def test_a_server_that_falters_is_asked_again(failures: list[int], server: FakeVLLM, tmp_path: Path) -> None:
    engine = engine_at(server.url, tmp_path)
    wanted = engine.sample(PROMPTS[:1], KEYS[:1], max_new_tokens=4, temperature=1.0)
    server.failures = failures
    assert engine.sample(PROMPTS[:1], KEYS[:1], max_new_tokens=4, temperature=1.0) == wanted
    assert not server.failures


def test_a_server_that_goes_on_failing_ends_the_run(server: FakeVLLM, tmp_path: Path) -> None:
    engine = engine_at(server.url, tmp_path)
    server.failures = [500] * 20
    with pytest.raises(RunError, match=r"v1/completions of the rollout engine failed: HTTP 500"):
        engine.sample(PROMPTS, KEYS, max_new_tokens=4, temperature=1.0)


def test_a_refusal_is_not_repeated(server: FakeVLLM, tmp_path: Path) -> None:
    server.failures = [404]
    with pytest.raises(RunError, match=r"collective_rpc of the rollout engine failed: HTTP 404.*DEV_MODE"):
        engine_at(server.url, tmp_path)
    assert server.paths() == ["/collective_rpc"]


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"http://127.0.0.1:9/collective_rpc .* ConnectError"):
        engine_at("http://127.0.0.1:9", tmp_path)


@pytest.mark.parametrize("field", ["token_ids", "logprobs"])
def test_a_server_that_sends_no_tokens_is_refused(field: str, server: FakeVLLM, tmp_path: Path) -> None:
    engine = engine_at(server.url, tmp_path)
    server.without = field
    with pytest.raises(RunError, match="return_token_ids"):
        engine.sample(PROMPTS, KEYS, max_new_tokens=4, temperature=1.0)


def test_weights_that_cannot_be_written_are_an_error_that_names_the_folder(
    server: FakeVLLM, tmp_path: Path
) -> None:
    (tmp_path / "engine").write_text("a file stands in the way")
    with pytest.raises(RunError, match=r"weights could not be written to .*engine"):
        engine_at(server.url, tmp_path)


@pytest.mark.skipif(
    find_spec("vllm") is None or not torch.cuda.is_available(), reason="needs vllm and a GPU to serve from"
)
def test_35_a_real_vllm_samples_from_the_weights_it_was_sent(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    shape = ModelShape(hidden_size=128, layers=2, heads=2, kv_heads=1, context_length=128)
    new_model(shape, tokenizer, seed=9).save_pretrained(tmp_path / "served")
    save_tokenizer(tokenizer, tmp_path / "served")
    options = ["--port", "8123", "--logprobs-mode", "processed_logprobs", "--dtype", "float32"]
    process = subprocess.Popen(
        ["vllm", "serve", str(tmp_path / "served"), *options],
        env={**os.environ, "VLLM_SERVER_DEV_MODE": "1"},
    )
    try:
        until_healthy("http://127.0.0.1:8123")
        policy = new_model(shape, tokenizer, seed=1)
        engine = engine_at("http://127.0.0.1:8123", tmp_path, policy)
        prompts = [[token % len(tokenizer) for token in prompt] for prompt in PROMPTS]
        samples = engine.sample(prompts, KEYS, max_new_tokens=6, temperature=0.7)
    finally:
        process.terminate()
        process.wait()
    for prompt, sample in zip(prompts, samples, strict=True):
        ids = torch.tensor([prompt + sample.ids])
        logits = policy(ids).logits[:, len(prompt) - 1 : -1]
        found = chosen_log_probs(logits, ids[:, len(prompt) :], temperature=0.7)[0]
        assert torch.allclose(found, torch.tensor(sample.log_probs), atol=1e-3)


def until_healthy(url: str) -> None:
    """Wait until a server answers, for five minutes at most."""
    for _ in range(300):
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(f"{url}/health").is_success:
                return
        time.sleep(1)
    raise TimeoutError(url)
