"""How much may wait in front of an engine, and how much of it one tenant may take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise_server.engine.waiting_room import WaitingRoom
from turnwise_server.errors import QueueFullError

CONTEXT = 100


def try_enter(room: WaitingRoom, tenant: str, tokens: int = 1, *, free: int = 0) -> bool:
    try:
        room.check(tenant, tokens, free=free, context_length=CONTEXT)
    except QueueFullError:
        return False
    room.enter(tenant, tokens)
    return True


def fill(room: WaitingRoom, tenant: str, tokens: int = 1, *, free: int = 0) -> int:
    """Let a tenant come until it is refused; return how often it was let in."""
    count = 0
    while try_enter(room, tenant, tokens, free=free):
        count += 1
    return count


def test_one_key_takes_half_of_the_room_and_two_take_a_third_each() -> None:
    room = WaitingRoom(60, None)
    assert fill(room, "a") == 30
    assert fill(room, "b") == 15
    for _ in range(10):
        room.leave("a", 1)
    assert fill(room, "b") == 5
    assert fill(room, "a") == 0
    assert try_enter(room, "c")


def test_long_prompts_of_one_key_leave_room_for_the_prompts_of_others() -> None:
    room = WaitingRoom(1000, None)
    assert fill(room, "a", tokens=99) == 4
    assert try_enter(room, "b", tokens=99)


def test_everybody_on_a_server_without_keys_may_fill_the_room() -> None:
    room = WaitingRoom(60, None)
    assert fill(room, "") == 60


def test_empty_places_of_the_batch_are_nobodys_share() -> None:
    assert fill(WaitingRoom(0, None), "a", free=8) == 8
    assert fill(WaitingRoom(10, None), "a", free=8) == 8 + 5
    assert fill(WaitingRoom(10, None), "a", tokens=99, free=8) == 8, "eight choices of one long prompt"


@pytest.mark.parametrize("places", [1, 2, 3])
def test_a_small_room_is_not_closed_by_sharing_it(places: int) -> None:
    room = WaitingRoom(places, None)
    assert try_enter(room, "a")
    assert room.requests == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 99), st.booleans()), max_size=200))
def test_a_tenant_with_nothing_waiting_gets_in_whatever_the_others_did(
    steps: list[tuple[str, int, bool]],
) -> None:
    room = WaitingRoom(20, None)
    waiting: list[tuple[str, int]] = []
    for tenant, tokens, leaves in steps:
        if leaves and waiting:
            room.leave(*waiting.pop(0))
        elif try_enter(room, tenant, tokens):
            waiting.append((tenant, tokens))
        assert (room.requests, room.tokens) == (len(waiting), sum(tokens for _, tokens in waiting))
        assert room.requests <= 20
        assert room.tokens <= 8 * CONTEXT
    room.check("newcomer", 99, free=0, context_length=CONTEXT)
