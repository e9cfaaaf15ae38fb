"""The card of a detector, written from its safety.json."""

from typing import Any

from turnwise_training.policy import policy_words
from turnwise_training.safety.judge import table

_FRONT = """---
language:
- en
library_name: transformers
license: {licence}
pipeline_tag: text-classification
base_model: sentence-transformers/all-MiniLM-L6-v2
tags:
- moderation
- safety
---
"""

_LIMITS = """## Limits

- English only. Other languages, and encodings that the server has not decoded first, pass mostly unseen.
- It knows what public data sets call harmful. Categories with few training texts (threats, self-harm, minors,
  graphic violence) rest on few written examples: let a larger guard model judge what matters.
- A classifier of this size is a first sieve, not a judgement: it misses harmful requests that are worded calmly, and
  flags some harmless ones. Figures on other data will differ.
- Read refused messages by hand before trusting a threshold.
"""


_WHAT = """Scores a message under OpenAI's thirteen moderation categories, each from 0 to 1 and apart from the others.
all-MiniLM-L6-v2 (Apache-2.0), fine-tuned with its word embeddings frozen, and a linear model over hashed n-grams;
their logits are added. `docs/safety-detector.md` says how to read the directory.
"""

_HELD_OUT = """No text of these sources was trained on, and the program chose no threshold on them; near-duplicates
between them and the training texts were left out. `flagged` is the share that reaches the threshold of any label.
"""

_LICENCES = """Every source keeps its own licence; BY asks for attribution, BY-SA that the data is passed on alike. The
weights hold no copy of the texts. `contrasts` was written for this detector.
"""


def card(facts: dict[str, Any]) -> str:
    """Return the Markdown of a detector's card: what it is, the figures, sources with licences, limits."""
    permissive = facts["licences"] == "permissive"
    warning = (
        ""
        if permissive
        else "**Trained on rows of any licence: for experiments only, not to be passed on.**\n"
    )
    return "\n".join(
        (
            _FRONT.format(licence="apache-2.0" if permissive else "other"),
            "# Turnwise safety detector\n",
            warning,
            _WHAT,
            _shape(facts),
            f"Trained under the policy {policy_words(facts['policy'])}.\n",
            "## Figures on sources held out whole\n",
            _HELD_OUT,
            table(facts["held_out"]),
            "\n### By label, harmful texts whose label is known\n",
            _labels(facts["held_out"]),
            "\n## Figures on the sources the thresholds were chosen on\n",
            table(facts["development"]),
            "\n## Sources\n",
            _LICENCES,
            _sources(facts["training"]),
            "",
            _LIMITS,
            f"## Notes\n\n{facts['notes'].strip()}\n" if facts["notes"] else "",
        )
    )


def _shape(facts: dict[str, Any]) -> str:
    allowed, speed = facts["false_refusals_allowed"], facts["milliseconds_a_message"]
    parts = ", ".join(f"{name} {weight:g}" for name, weight in facts["ensemble"].items())
    thresholds = ", ".join(f"{label} {limit:.2f}" for label, limit in facts["thresholds"].items())
    return (
        f"Weights of the logits: {parts}; temperature {next(iter(facts['temperature'].values()))}. Thresholds: "
        f"{thresholds}. They were chosen so that at most {allowed['ordinary']:.1%} of each development source's "
        f"ordinary texts, {allowed['content']:.1%} of the harmless remarks of moderation data sets and "
        f"{allowed['hard_safe']:.0%} of harmless texts that are alarming are flagged. A message takes "
        f"{speed['median']} ms at the median and {speed['p90']} ms at the 90th percentile of {speed['n']} held-out "
        f"ones, on one thread of a machine with other work.\n"
    )


def _labels(figures: dict[str, Any]) -> str:
    lines = ["| label | n | flagged under any label | 95% |", "|---|---|---|---|"]
    for label, share in figures["labels"].items():
        low, high = share["wilson95"]
        lines.append(f"| {label} | {share['n']} | {share['rate']:.1%} | {low:.1%}-{high:.1%} |")
    return "\n".join(lines)


def _sources(rows: list[dict[str, Any]]) -> str:
    lines = ["| source | licence | harmless | harmful |", "|---|---|---|---|"]
    lines += [f"| {row['source']} | {row['licence']} | {row['safe']} | {row['unsafe']} |" for row in rows]
    return "\n".join(lines)
