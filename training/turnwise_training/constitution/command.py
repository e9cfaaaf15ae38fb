"""`turnwise-train constitution`: writes the rows that teach a policy, and the manifest that says what they are."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from turnwise_training.config import ConstitutionConfig
from turnwise_training.constitution.feedback import tasks
from turnwise_training.constitution.lessons import Lesson, distinct
from turnwise_training.constitution.manifest import DEMONSTRATIONS, FORMAT, MANIFEST, PREFERENCES
from turnwise_training.constitution.record import judged
from turnwise_training.constitution.requests import Request, all_requests
from turnwise_training.constitution.rules import Rules
from turnwise_training.data import Ranking
from turnwise_training.policy import Policy, read_policy
from turnwise_training.recipe import as_json
from turnwise_training.run import file_sha256, refuse_finished, write_durably


def describe(config: ConstitutionConfig) -> dict[str, object]:
    """Return what a dry run prints: the policy, its sources, the rows that need no model and what one is asked."""
    policy = read_policy(config.policy_file)
    requests = all_requests(config, policy)
    facts = _facts(policy, requests, _lessons(config, policy, requests))
    if config.feedback is not None:
        asked = tasks(policy, requests, most=config.feedback.requests, seed=config.seed)
        facts["feedback"] = {principle: len(chosen) for principle, chosen in asked.items()}
    return facts


def run_constitution(config: ConstitutionConfig, *, force: bool) -> None:
    """Write the rows and, when all are there, the manifest; a run that was cut goes on where it was.

    Raises RunError where a manifest is there already, unless `force`.
    """
    refuse_finished(config.output / MANIFEST, force=force)
    policy = read_policy(config.policy_file)
    requests = all_requests(config, policy)
    lessons = _lessons(config, policy, requests)
    config.output.mkdir(parents=True, exist_ok=True)
    (config.output / MANIFEST).unlink(missing_ok=True)
    asked: dict[str, object] = {}
    if config.feedback is not None:
        models = judged(config.feedback, policy, requests, config.output, seed=config.seed)
        lessons, asked = distinct([*lessons, *models.lessons]), {"feedback": models.facts}
    manifest = {
        "format": FORMAT,
        **_facts(policy, requests, lessons),
        **asked,
        "sha256": _write(config.output, lessons),
        "config": as_json(config),
    }
    write_durably(config.output / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())


def _lessons(config: ConstitutionConfig, policy: Policy, requests: Sequence[Request]) -> list[Lesson]:
    rules = Rules(policy, replies_each=config.replies_each, seed=config.seed)
    return distinct(rules.lessons(requests))


def _facts(policy: Policy, requests: Sequence[Request], lessons: Sequence[Lesson]) -> dict[str, object]:
    return {"policy": policy.record, "sources": _sources(requests), "rows": census(lessons)}


def census(lessons: Iterable[Lesson]) -> dict[str, dict[str, dict[str, int]]]:
    """Return the rows of each file by kind, by category and by principle."""
    lessons = list(lessons)
    return {
        name: {
            "by_kind": Counter(each.kind for each in rows),
            "by_category": Counter(each.category or "none" for each in rows),
            "by_principle": Counter(each.principle or "none" for each in rows),
        }
        for name, rows in _files(lessons).items()
    }


def _files(lessons: Iterable[Lesson]) -> dict[str, list[Lesson]]:
    files: dict[str, list[Lesson]] = {DEMONSTRATIONS: [], PREFERENCES: []}
    for lesson in lessons:
        name = PREFERENCES if isinstance(lesson.row, Ranking) else DEMONSTRATIONS
        files[name].append(lesson)
    return files


def _write(folder: Path, lessons: Iterable[Lesson]) -> dict[str, str]:
    """Write each file of rows whole and return its digest by name."""
    digests = {}
    for name, rows in _files(lessons).items():
        write_durably(folder / name, "".join(row.line for row in rows).encode())
        digests[name] = file_sha256(folder / name)
        sys.stderr.write(f"{folder / name}: {len(rows):,} rows\n")
    return digests


def _sources(requests: Iterable[Request]) -> list[dict[str, object]]:
    """Return the sources of the requests with their licence and count."""
    counts = Counter((request.source, request.licence) for request in requests)
    return [
        {"source": source, "licence": licence, "requests": count}
        for (source, licence), count in sorted(counts.items())
    ]
