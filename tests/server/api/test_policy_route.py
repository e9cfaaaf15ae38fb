"""GET /v1/policy shows what is in force, and nothing that is nobody's business."""

from pathlib import Path

import httpx2
import pytest

from support.fake_server import fake_server
from support.policy_cases import MINIMAL, MINIMAL_SHA256
from turnwise_server.chat.refusal.policy_holder import PolicyHolder

SECRETS = (
    MINIMAL.read_text()
    .replace("url: https://guard.example/v1", "url: https://guard.example/v1\n    api_key_env: GUARD_KEY")
    .replace("path: builtin:safety", "path: /srv/private/detector")
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(SECRETS)
    return file


def reword(file: Path) -> None:
    file.write_text(SECRETS.replace("Be honest.", "Be honest, always."))


async def get_policy(holder: PolicyHolder) -> httpx2.Response:
    async with fake_server(policy=holder) as server:
        return await server.client.get("/v1/policy")


async def test_principles_categories_actions_and_digest_are_shown() -> None:
    policy = (await get_policy(PolicyHolder(MINIMAL))).json()
    assert policy["object"] == "policy"
    assert policy["sha256"] == MINIMAL_SHA256
    assert [each["id"] for each in policy["principles"]] == ["honesty"]
    actions = [(each["id"], each["input_action"], each["output_action"]) for each in policy["categories"]]
    assert actions == [
        ("everything", "refuse", "block"),
        ("crisis", "safe_complete", "block"),
        ("advice", "caution", "allow"),
    ]


async def test_neither_addresses_nor_files_nor_scores_are_shown(file: Path) -> None:
    shown = (await get_policy(PolicyHolder(file))).text
    for secret in (
        "guard.example",
        "GUARD_KEY",
        "/srv/private",
        str(file),
        "0.8",
        "threshold",
        "audit",
        "my symptoms",
    ):
        assert secret not in shown


async def test_what_is_shown_changes_with_the_file(file: Path) -> None:
    holder = PolicyHolder(file)
    before = (await get_policy(holder)).json()["sha256"]
    reword(file)
    holder.refresh()
    after = (await get_policy(holder)).json()
    assert after["sha256"] != before
    assert after["principles"][0]["text"] == "Be honest, always."
