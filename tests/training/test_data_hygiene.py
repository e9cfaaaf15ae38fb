"""What counts too often or should not be kept is left out when asked; votes become rankings when asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise_training.data import Completion, Conversation, Message, Prompt, Ranking, Row, Text, Vote
from turnwise_training.data.census import Census
from turnwise_training.data.hygiene import cap_users, drop_shared_prefixes
from turnwise_training.data.personal import drop_personal, personal_data
from turnwise_training.data.preferences import as_rankings
from turnwise_training.errors import DataError


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


def system(content: str) -> Message:
    return {"role": "system", "content": content}


def test_of_prompts_that_share_a_long_prefix_the_first_is_kept() -> None:
    opening = "Write a story about a fox and a hen. "
    rows = [Prompt((user(opening + end),)) for end in ("It rains.", "It snows.", "")]
    assert list(drop_shared_prefixes(rows, characters=40)) == [rows[0], rows[2]]
    assert list(drop_shared_prefixes(rows, characters=200)) == rows


def test_case_and_blanks_make_no_other_prompt_but_another_system_message_does() -> None:
    rows = [
        Prompt((user("Hello  there"),)),
        Prompt((user("hello there\n"),)),
        Prompt((system("Be brief."), user("Hello there"))),
        Prompt((system("Be kind."), user("Hello there"))),
    ]
    assert list(drop_shared_prefixes(rows)) == [rows[0], rows[2], rows[3]]


def test_dialogues_that_only_open_alike_are_kept() -> None:
    rows: list[Row] = [
        Conversation((user("Hi"), assistant("Hello."), user(asked), assistant("Yes.")))
        for asked in ("A?", "B?", "A?")
    ]
    rows += [Text("Once."), Text("Once."), Text("Twice.")]
    assert list(drop_shared_prefixes(rows)) == [*rows[:2], rows[3], rows[5]]


@given(st.lists(st.text(max_size=12)), st.integers(1, 8))
def test_kept_prompts_share_no_prefix_and_every_dropped_one_shares_one(
    texts: list[str], characters: int
) -> None:
    rows = [Text(text) for text in texts]
    kept = list(drop_shared_prefixes(rows, characters=characters))
    prefixes = [" ".join(row.text.lower().split())[:characters] for row in kept]
    assert len(set(prefixes)) == len(prefixes)
    assert {" ".join(text.lower().split())[:characters] for text in texts} == set(prefixes)


def test_a_user_keeps_his_first_rows() -> None:
    rows: list[Row] = [Prompt((user(str(n)),), {"user": "ann"}) for n in range(4)]
    rows += [Conversation((user("a"), assistant("b")), user="ann"), Conversation((user("a"), assistant("b")))]
    rows += [Vote((user("a"),), "b", label=True, user="bob"), Text("x")]
    assert list(cap_users(rows, most=2)) == [*rows[:2], *rows[5:]]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Write to ann.smith+x@mail.example.org.", {"e-mail address"}),
        ("Call +44 20 7946 0958 now", {"phone number"}),
        ("Call (415) 555-2671.", {"phone number"}),
        ("Call 415-555-2671", {"phone number"}),
        ("My card is 4111 1111 1111 1111", {"card number"}),
        ("In 1914 - 1918 and 1939-1945", set()),
        ("3.14159265358979 and 1,234,567,890 and 20260101", set()),
        ("order 4111 1111 1111 1112", set()),
        ("@ann said 5 + 5 = 10", set()),
    ],
)
def test_personal_data_is_known_by_its_shape(text: str, kinds: set[str]) -> None:
    row = Conversation((user("Hi"), assistant(text)))
    assert personal_data(row) == kinds
    assert list(drop_personal([row])) == ([] if kinds else [row])


def vote(prompt: str, completion: str, *, label: bool) -> Vote:
    return Vote((user(prompt),), completion, label)


def test_votes_on_one_prompt_become_a_ranking_where_they_tell_answers_apart() -> None:
    ranking = Ranking((user("Q"),), (Completion("a", 1), Completion("b", 2)))
    rows: list[Row] = [
        vote("both", "good", label=True),
        vote("only liked", "good", label=True),
        ranking,
        vote("both", "fine", label=True),
        vote("both", "bad", label=False),
        vote("both", "split", label=False),
        vote("both", "split", label=True),
        vote("both", "mostly bad", label=False),
        vote("both", "mostly bad", label=True),
        vote("both", "mostly bad", label=False),
    ]
    completions = (
        Completion("good", 1),
        Completion("fine", 1),
        Completion("bad", 2),
        Completion("mostly bad", 2),
    )
    assert as_rankings(rows) == [ranking, Ranking((user("both"),), completions)]


def test_rankings_are_asked_of_rankings_and_votes_only() -> None:
    with pytest.raises(DataError, match="reads rankings, found running text"):
        as_rankings([Text("Once.")])


def test_a_census_counts_what_passes_through_it() -> None:
    rows: list[Row] = [
        Conversation((user("Hi"), assistant("Hello.")), id="1", user="ann"),
        Conversation((user("Hi"), assistant("Hello.")), id="2", user="ann"),
        Conversation((user("Hi"), assistant("ann@example.org")), user="bob"),
        Ranking((user("Q"),), (Completion("a", 1), Completion("b", 2), Completion("c", 2))),
        Text("Once."),
    ]
    census = Census()
    assert list(census.count(rows)) == rows
    assert census.kinds == {"conversations": 3, "rankings": 1, "running text": 1}
    assert (census.duplicates, census.shared_prompts) == (1, 1)
    assert census.users == {"ann": 2, "bob": 1}
    assert (census.completions, census.pairs) == ({3: 1}, 2)
    assert census.personal == {"e-mail address": 1}
    assert census.first == rows[0]
