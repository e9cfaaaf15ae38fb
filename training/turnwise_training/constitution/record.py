"""Asks models for their opinions and records each one, so that a run that goes on asks no question twice."""

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from turnwise_training.config import Feedback
from turnwise_training.constitution.assistants import Assistant, load_assistant
from turnwise_training.constitution.feedback import Opinion, Task, ask, opinion_lessons, tasks
from turnwise_training.constitution.lessons import Lesson
from turnwise_training.constitution.requests import Request
from turnwise_training.policy import Policy

FILE = "feedback.jsonl"


class Record:
    """Opinions by their task's key, one a line; a line that was torn by a kill is cut off."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        os.truncate(path, len(whole))
        lines = [json.loads(line) for line in whole.splitlines()]
        self._opinions = {line["key"]: Opinion(**line["opinion"]) for line in lines}

    def __contains__(self, key: str) -> bool:
        return key in self._opinions

    def __getitem__(self, key: str) -> Opinion:
        return self._opinions[key]

    def add(self, opinions: dict[str, tuple[Task, Opinion]]) -> None:
        """Write opinions to the disk."""
        lines = "".join(
            json.dumps({"key": key, **_about(task), "opinion": asdict(opinion)}, ensure_ascii=False) + "\n"
            for key, (task, opinion) in opinions.items()
        )
        with self._path.open("a", encoding="utf-8") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self._opinions |= {key: opinion for key, (_, opinion) in opinions.items()}


def _about(task: Task) -> dict[str, object]:
    category = task.request.category
    return {
        "principle": task.principle.id,
        "category": category.id if category else None,
        "source": task.request.source,
        "request": task.request.text,
    }


@dataclass(frozen=True)
class Judged:
    """What the models' opinions teach, and what the manifest says of them."""

    lessons: list[Lesson]
    facts: dict[str, object]


def judged(
    settings: Feedback, policy: Policy, requests: Sequence[Request], folder: Path, *, seed: int
) -> Judged:
    """Return the lessons of every opinion, asking for those that the folder's record lacks."""
    assistant = load_assistant(settings.assistant, settings)
    judge = load_assistant(settings.judge, settings) if settings.judge else assistant
    names = (assistant.name, judge.name)
    asked_with = (*names, settings.max_new_tokens, settings.temperature, settings.least_preference, seed)
    record = Record(folder / FILE)
    lessons: list[Lesson] = []
    outcomes: dict[str, Counter[str]] = {}
    for principle, chosen in tasks(policy, requests, most=settings.requests, seed=seed).items():
        keyed = {task.key(*asked_with): task for task in chosen}
        missing = [(key, task) for key, task in keyed.items() if key not in record]
        for start in range(0, len(missing), settings.batch):
            _ask(missing[start : start + settings.batch], record, assistant, judge, settings, seed=seed)
            done = min(start + settings.batch, len(missing))
            sys.stderr.write(f"{principle}: {done} of {len(missing)}\n")
        opinions = [(task, record[key]) for key, task in keyed.items()]
        outcomes[principle] = Counter(opinion.outcome for _, opinion in opinions)
        lessons += [each for task, opinion in opinions for each in opinion_lessons(task, opinion, names[1])]
    return Judged(lessons, {"assistant": names[0], "judge": names[1], "outcomes": outcomes})


def _ask(
    batch: Sequence[tuple[str, Task]],
    record: Record,
    assistant: Assistant,
    judge: Assistant,
    settings: Feedback,
    *,
    seed: int,
) -> None:
    opinions = ask([task for _, task in batch], assistant, judge, least=settings.least_preference, seed=seed)
    record.add({key: (task, opinion) for (key, task), opinion in zip(batch, opinions, strict=True)})
