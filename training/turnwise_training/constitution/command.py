"""`turnwise-train constitution`: writes the rows that teach a policy, and the manifest that says what they are."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from turnwise_training.config import ConstitutionConfig
from turnwise_training.constitution.lessons import Lesson, distinct
from turnwise_training.constitution.requests import Request, harmful_requests, harmless_requests
from turnwise_training.constitution.rules import Rules
from turnwise_training.data import Ranking
from turnwise_training.policy import read_policy
from turnwise_training.recipe import as_json
from turnwise_training.run import file_sha256, refuse_finished, write_durably

FORMAT = "turnwise-constitution-1"
MANIFEST = "manifest.json"


def describe(config: ConstitutionConfig) -> dict[str, object]:
    """Return what a dry run prints: the policy, its sources and the rows that need no model."""
    policy = read_policy(config.policy_file)
    harmful, harmless = harmful_requests(config, policy), harmless_requests(config)
    rules = Rules(policy, replies_each=config.replies_each, seed=config.seed)
    facts: dict[str, object] = {
        "policy": policy.record,
        "sources": _sources([*harmful, *harmless]),
        "rows": census(distinct(rules.lessons(harmful, harmless))),
    }
    return facts


def run_constitution(config: ConstitutionConfig, *, force: bool) -> None:
    """Write the rows and, when all are there, the manifest; raises RunError where one is there, unless `force`."""
    refuse_finished(config.output / MANIFEST, force=force)
    policy = read_policy(config.policy_file)
    harmful, harmless = harmful_requests(config, policy), harmless_requests(config)
    rules = Rules(policy, replies_each=config.replies_each, seed=config.seed)
    lessons = distinct(rules.lessons(harmful, harmless))
    config.output.mkdir(parents=True, exist_ok=True)
    (config.output / MANIFEST).unlink(missing_ok=True)
    manifest = {
        "format": FORMAT,
        "policy": policy.record,
        "rows": census(lessons),
        "sources": _sources([*harmful, *harmless]),
        "sha256": _write(config.output, lessons),
        "config": as_json(config),
    }
    write_durably(config.output / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())


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
    files: dict[str, list[Lesson]] = {"demonstrations.jsonl": [], "preferences.jsonl": []}
    for lesson in lessons:
        name = "preferences.jsonl" if isinstance(lesson.row, Ranking) else "demonstrations.jsonl"
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
