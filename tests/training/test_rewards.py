"""Reward terms: models, functions, HTTP scorers and principles, and what is said when one misbehaves."""

import math
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from transformers import PreTrainedTokenizerFast

from support.json_server import json_server
from turnwise_training.chat import Encoder, load_tokenizer
from turnwise_training.config import RewardTerm
from turnwise_training.data import Message, Prompt
from turnwise_training.data.rows import answered
from turnwise_training.episodes import Episode, Sample
from turnwise_training.errors import ConfigurationError, RewardError
from turnwise_training.http_reward import HttpReward
from turnwise_training.models import new_reward_model
from turnwise_training.policy import DEFAULT_POLICY
from turnwise_training.principles import PrinciplesReward
from turnwise_training.ranked import encode_answers
from turnwise_training.rewards import CallableReward, ModelReward, WeightedReward, build_reward
from turnwise_training.scoring import score_ids
from turnwise_training.tokenizer import save_tokenizer, train_tokenizer

CPU = torch.device("cpu")
REPLIES = ("Hi, the cat sat.", "Very old.", "The red dog sat on the new mat.")


def episode(encoder: Encoder, reply: str, *, ended: bool = True) -> Episode:
    messages: tuple[Message, ...] = ({"role": "user", "content": "Hello, I am number 7."},)
    (ids,) = encode_answers([answered(messages, reply)], encoder)
    prompt_ids = encoder.prompt_ids(messages)
    sampled = ids[len(prompt_ids) :] if ended else ids[len(prompt_ids) : -1]
    sample = Sample(sampled, ended, [-1.0] * len(sampled))
    return Episode(Prompt(messages, {"level": 3}), prompt_ids, sample, reply)


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    return Encoder(tokenizer)


@pytest.fixture
def episodes(encoder: Encoder) -> list[Episode]:
    return [episode(encoder, reply) for reply in REPLIES]


@pytest.fixture
def reward_folder(tmp_path: Path, base_checkpoint: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A reward model with the policy's tokenizer and a bias."""
    model = new_reward_model(base_checkpoint, seed=1)
    model.config.reward_bias = 0.5
    model.config.pad_token_id = tokenizer.pad_token_id
    folder = tmp_path / "reward"
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


class Fixed:
    def __init__(self, *scores: float) -> None:
        self._scores = scores

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        return list(self._scores)


def test_a_model_term_scores_the_sampled_tokens(
    reward_folder: Path, encoder: Encoder, episodes: list[Episode]
) -> None:
    reward = ModelReward(reward_folder, encoder, CPU)
    model = new_reward_model(reward_folder.parent / "base", seed=1)
    expected = score_ids(model, [each.prompt_ids + each.sample.ids for each in episodes])
    assert reward.score(episodes) == pytest.approx([score + 0.5 for score in expected], abs=1e-5)
    assert reward.score([]) == []


@pytest.mark.parametrize("ended", [True, False])
def test_a_model_with_another_tokenizer_reads_the_messages_anew(
    ended: bool, reward_folder: Path, encoder: Encoder
) -> None:
    other = Encoder(train_tokenizer(["Quite other words in here."] * 9, vocab_size=280, context_length=128))
    asked = [episode(other, reply, ended=ended) for reply in REPLIES]
    own = [episode(encoder, reply, ended=ended) for reply in REPLIES]
    assert asked[0].prompt_ids != own[0].prompt_ids
    scores = ModelReward(reward_folder, other, CPU).score(asked)
    assert scores == pytest.approx(ModelReward(reward_folder, encoder, CPU).score(own), abs=1e-5)


def test_an_episode_over_the_reward_models_context_is_refused(reward_folder: Path, encoder: Encoder) -> None:
    long = episode(encoder, "The cat sat. " * 60)
    with pytest.raises(
        RewardError, match=r"over the context of 128 of the reward model .*lower max_prompt_tokens"
    ):
        ModelReward(reward_folder, encoder, CPU).score([long])


def test_a_language_model_is_no_reward_model(base_checkpoint: Path, encoder: Encoder) -> None:
    with pytest.raises(ConfigurationError, match=r"is no reward model: it lacks \['score.weight'\]"):
        ModelReward(base_checkpoint, encoder, CPU)


def test_a_function_in_the_working_directory_scores_episodes(
    tmp_path: Path, episodes: list[Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_rewards.py").write_text(
        "def short(episodes):\n    return [-len(e.reply) * e.prompt.columns['level'] for e in episodes]\n"
        "def words(episodes):\n    return ['a' for e in episodes]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    assert CallableReward("own_rewards:short").score(episodes) == [-3.0 * len(reply) for reply in REPLIES]
    with pytest.raises(RewardError, match="'own_rewards:words' returned no list of numbers"):
        CallableReward("own_rewards:words").score(episodes)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("json.dumps", "is no `module:function`"),
        ("no_such_module:score", "cannot be imported: No module named"),
        ("json:no_such_function", "cannot be imported: .*no_such_function"),
    ],
)
def test_a_function_that_cannot_be_found_is_named(source: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"reward '{source}' {message}"):
        CallableReward(source)


def test_the_sum_weighs_each_term_and_keeps_them_apart(episodes: list[Episode]) -> None:
    reward = WeightedReward([("a", 2.0, Fixed(1, 2, 3)), ("b", -0.5, Fixed(10, 0, 4))])
    assert reward.score(episodes) == [-3.0, 4.0, 4.0]
    assert reward.score_terms(episodes) == {"a": [1, 2, 3], "b": [10, 0, 4]}


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ((1.0, 2.0), "reward 'odd' gave 2 scores to 3 episodes"),
        ((1.0, math.nan, 2.0), "reward 'odd' gave nan, which is no finite number"),
        ((math.inf, 1.0, 2.0), "reward 'odd' gave inf"),
    ],
)
def test_a_term_that_misbehaves_is_named(
    scores: tuple[float, ...], message: str, episodes: list[Episode]
) -> None:
    reward = WeightedReward([("good", 1.0, Fixed(0, 0, 0)), ("odd", 1.0, Fixed(*scores))])
    with pytest.raises(RewardError, match=message):
        reward.score(episodes)


def test_a_term_named_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'a' is named twice"):
        WeightedReward([("a", 1.0, Fixed()), ("a", 2.0, Fixed())])


def test_a_server_gets_prompt_reply_and_columns_and_gives_scores(episodes: list[Episode]) -> None:
    def lengths(path: str, body: dict[str, list[dict[str, str]]]) -> object:
        return {"scores": [len(each["reply"]) for each in body["episodes"]]}

    with json_server(lengths) as server:
        assert HttpReward(server.url + "/score").score(episodes * 30) == [*map(len, REPLIES)] * 30
    assert [path for path, _ in server.seen] == ["/score", "/score"]
    assert server.seen[0][1]["episodes"][0] == {
        "prompt": [{"role": "user", "content": "Hello, I am number 7."}],
        "reply": REPLIES[0],
        "columns": {"level": 3},
    }


def test_a_server_that_fails_for_a_while_is_asked_again(episodes: list[Episode]) -> None:
    with json_server(lambda path, body: {"scores": [1, 2, 3]}, statuses=(500, 503, 429)) as server:
        assert HttpReward(server.url, first_pause_s=0.001).score(episodes) == [1, 2, 3]
    assert len(server.seen) == 4


def test_a_server_that_keeps_failing_is_named_with_what_it_said(episodes: list[Episode]) -> None:
    with (
        json_server(lambda path, body: {}, statuses=(500,) * 9) as server,
        pytest.raises(RewardError, match=f"{server.url} gave no answer in 5 attempts; .*500: out of order"),
    ):
        HttpReward(server.url, first_pause_s=0.001).score(episodes)


def test_a_server_that_is_not_there_is_named(episodes: list[Episode]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(RewardError, match=f"{url} gave no answer in 5 attempts; .*refused"):
            HttpReward(url, first_pause_s=0.001).score(episodes)


def test_a_refused_request_is_not_repeated(episodes: list[Episode]) -> None:
    with (
        json_server(lambda path, body: {}, statuses=(404,)) as server,
        pytest.raises(RewardError, match="answered status 404: out of order"),
    ):
        HttpReward(server.url, first_pause_s=0.001).score(episodes)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("soon", "answered no JSON: 'soon'"),
        ([1, 2, 3], "must answer"),
        ({"scores": [1, None, 2]}, "must answer"),
        ({"scores": [1, 2]}, "gave 2 scores to 3 episodes"),
    ],
)
def test_an_answer_without_scores_is_an_error(answer: object, message: str, episodes: list[Episode]) -> None:
    with json_server(lambda path, body: answer) as server, pytest.raises(RewardError, match=message):
        HttpReward(server.url).score(episodes)


def write_policy(folder: Path, *principles: dict[str, object]) -> Path:
    """Write the policy that ships with other principles."""
    policy = yaml.safe_load(DEFAULT_POLICY.read_text())
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(policy | {"principles": list(principles)}))
    return path


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    return write_policy(
        tmp_path,
        {"id": "cats", "text": "Speak of cats.", "compare": "Which speaks of cats?", "weight": 3},
        {"id": "dogs", "text": "Speak of dogs.", "compare": "Which speaks of dogs?"},
    )


def judge_by_words(path: str, body: dict[str, list[dict[str, str]]]) -> object:
    """Say yes where the last reply names the animal of the principle."""
    if path == "/v1/models":
        return {"object": "list", "data": [{"id": "judge-1"}]}
    conversation, _, principle = body["messages"][0]["content"].rpartition("Principle: ")
    animal = "cat" if "cats" in principle else "dog"
    content = "**Yes**." if animal in conversation.rsplit("assistant: ", 1)[1] else " no"
    return {"choices": [{"message": {"role": "assistant", "content": content}}]}


def test_principles_give_the_weighted_share_that_is_kept(
    policy_file: Path, episodes: list[Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with json_server(judge_by_words) as server:
        reward = PrinciplesReward(policy_file, server.url + "/v1/")
        assert reward.score(episodes) == [0.75, 0.0, 0.25]
        assert reward.score([]) == []
    assert reward.unclear == 0
    asked = [body for path, body in server.seen if path == "/v1/chat/completions"]
    assert len(asked) == 6
    assert {body["model"] for body in asked} == {"judge-1"}
    assert all(headers["Authorization"] == "Bearer secret" for headers in server.headers)


def test_unclear_verdicts_count_half_and_are_reported(
    policy_file: Path, episodes: list[Episode], capsys: pytest.CaptureFixture[str]
) -> None:
    def sometimes_vague(path: str, body: dict[str, list[dict[str, str]]]) -> object:
        vague = path != "/v1/models" and "dogs" in body["messages"][0]["content"]
        return (
            {"choices": [{"message": {"content": "Nobody knows"}}]} if vague else judge_by_words(path, body)
        )

    with json_server(sometimes_vague) as server:
        reward = PrinciplesReward(policy_file, server.url + "/v1")
        assert reward.score(episodes) == [0.875, 0.125, 0.125]
    assert reward.unclear == 3
    assert "3 of 6 verdicts were neither yes nor no" in capsys.readouterr().err


def test_a_judge_that_mostly_says_neither_is_an_error(policy_file: Path, episodes: list[Episode]) -> None:
    def vague(path: str, body: object) -> object:
        return {"data": [{"id": "j"}], "choices": [{"message": {"content": "Nobody knows"}}]}

    with (
        json_server(vague) as server,
        pytest.raises(RewardError, match="neither yes nor no 6 times of 6, as in 'Nobody knows'"),
    ):
        PrinciplesReward(policy_file, server.url).score(episodes)


@pytest.mark.parametrize("path", ["/models", "/chat/completions"])
def test_a_server_that_is_no_openai_server_is_an_error(
    path: str, policy_file: Path, episodes: list[Episode]
) -> None:
    def answer(asked: str, body: object) -> object:
        return {"data": []} if asked == path else {"data": [{"id": "j"}]}

    with json_server(answer) as server, pytest.raises(RewardError, match=f"{path} (lists no|answered no)"):
        PrinciplesReward(policy_file, server.url).score(episodes)


def test_principles_are_read_as_the_server_reads_them(tmp_path: Path) -> None:
    path = write_policy(tmp_path, {"id": "loose", "text": "Be kind."})
    with pytest.raises(ConfigurationError, match=r"policy\.yaml:\d+: .*'compare' is a required"):
        PrinciplesReward(path, "http://127.0.0.1:1")


def test_principles_need_a_judge(policy_file: Path) -> None:
    with pytest.raises(ConfigurationError, match="`judge` must be the URL"):
        PrinciplesReward(policy_file, "")


def test_a_recipes_terms_become_one_sum(
    reward_folder: Path, policy_file: Path, encoder: Encoder, episodes: list[Episode]
) -> None:
    def answer(path: str, body: dict[str, list[dict[str, str]]]) -> object:
        return {"scores": [1, 1, 1]} if path == "/score" else judge_by_words(path, body)

    with json_server(answer) as server:
        terms = [
            RewardTerm("model", str(reward_folder), 0.0),
            RewardTerm("callable", "support.training_processes:count_spaces", 0.0),
            RewardTerm("http", server.url + "/score", 10.0),
            RewardTerm("principles", str(policy_file), 4.0, judge=server.url + "/v1"),
        ]
        assert build_reward(terms, encoder, CPU).score(episodes) == [13.0, 10.0, 11.0]


def test_the_policys_own_tokenizer_is_known_again_after_saving(reward_folder: Path, encoder: Encoder) -> None:
    assert ModelReward(reward_folder, Encoder(load_tokenizer(reward_folder)), CPU)._encoder is None
    assert ModelReward(reward_folder, encoder, CPU)._encoder is None
