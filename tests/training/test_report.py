"""The report of a run: one offline file that shows curves, alarms, calibration, answers and settings."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from turnwise_training.charts import HEIGHT, WIDTH, Axis, calibration_chart, line_chart, smoothed
from turnwise_training.errors import RunError
from turnwise_training.report import series, write_report

HOSTILE = "</p><script>alert('x')</script>"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A PPO run of thirty iterations that runs away from its reference at the end."""
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    prompt = [{"role": "user", "content": HOSTILE}]
    lines: list[dict[str, object]] = [{"step": 0, "answers": [{"prompt": prompt, "answer": "first words"}]}]
    lines += [
        {
            "step": step,
            "score_mean": step / 10,
            "held_out_score_mean": 1 - step / 20,
            "kl_k1": float(step),
            "entropy": 2.0,
            "length_mean": 20.0,
            "unfinished": 0.0,
            "odd_figure": step**2,
            "alarms": [],
        }
        for step in range(1, 31)
    ]
    lines[-1]["answers"] = [{"prompt": prompt, "answer": "last words"}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 31, "to')
    phases = {"rollout": {"seconds": 2.0, "tokens_per_s": 100.0}, "update": {"seconds": 1.0}}
    timing = {
        "step": 1,
        "seconds": 3.5,
        "tokens_per_s": 50.0,
        "peak_bytes": {"memory": 2e9},
        "phases": phases,
    }
    (folder / "timing.jsonl").write_text(json.dumps(timing) + "\n")
    (folder / "config.json").write_text(json.dumps({"kl_max": 25.0, "policy": {"learning_rate": 5e-6}}))
    return folder


def test_the_report_shows_curves_alarms_answers_times_and_settings(run: Path) -> None:
    page = write_report(run, evaluation=None).read_text()
    assert "Score against divergence" in page
    assert "odd_figure" in page
    assert "<b>kl</b> from step 26, on 5 steps to 30" in page
    assert "<b>proxy</b> from step 20" in page
    assert page.index("first words") < page.index("last words")
    assert "<td>rollout</td><td>2.0</td><td>100</td>" in page
    assert "<td>policy.learning_rate</td><td>5e-06</td>" in page
    assert "2.0 GB" in page


def test_the_report_is_one_file_that_asks_for_nothing_and_runs_nothing(run: Path) -> None:
    page = write_report(run, evaluation=None).read_text()

    class Reader(HTMLParser):
        tags: set[str] = set()  # noqa: RUF012
        links: list[str | None] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags.add(tag)
            self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]

    reader = Reader()
    reader.feed(page)
    assert "script" not in reader.tags
    assert reader.links == []
    assert "url(" not in page
    assert "&lt;script&gt;" in page
    assert "prefers-color-scheme: dark" in page


def test_every_drawing_is_whole_xml_inside_its_frame(run: Path) -> None:
    page = write_report(run, evaluation=None).read_text()
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) > 4
    for drawing in drawings:
        for polyline in ElementTree.fromstring(drawing).iter("polyline"):
            for place in polyline.attrib["points"].split():
                x, y = map(float, place.split(","))
                assert 0 <= x <= WIDTH
                assert 0 <= y <= HEIGHT


def test_a_reward_run_shows_its_calibration(tmp_path: Path) -> None:
    bins: list[dict[str, float | None]] = [
        {"from": 0.5, "to": 0.55, "pairs": 4, "predicted": 0.52, "observed": 0.5},
        {"from": 0.55, "to": 0.6, "pairs": 0, "predicted": None, "observed": None},
    ]
    accuracy = {"pairs": 4, "share": 0.75}
    held_out = {"prompts": 2, "accuracy": accuracy, "by_source": {"mine": accuracy}, "calibration": bins}
    lines: list[dict[str, object]] = [{"step": step, "loss": 1 / step} for step in (1, 2)]
    lines.append({"step": 2, "held_out": held_out})
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "config.json").write_text("{}")
    page = write_report(tmp_path, evaluation=None).read_text()
    assert "<td>mine</td><td>4</td><td>75.0%</td>" in page
    assert "4 pairs: predicted 0.52, observed 0.50" in page
    assert calibration_chart(bins).count("<circle") == 1


def test_an_evaluation_joins_the_report_with_its_answers_side_by_side(run: Path, tmp_path: Path) -> None:
    rate = {"rate": 0.625, "low": 0.5, "high": 0.75}
    figures: dict[str, object] = {"held_out": {}, "refusals": {}}
    evaluation = {
        "against": "sft",
        "checkpoints": {"sft": figures, "ppo": {**figures, "preferred": {"win_rate": rate}}},
        "reward_models": {},
        "examples": [
            {
                "prompt": [{"role": "user", "content": "Well?"}],
                "answers": {"sft": "a plain reply", "ppo": "a better reply"},
            }
        ],
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    page = write_report(run, evaluation=tmp_path / "evaluation.json").read_text()
    assert "<td>preferred to sft</td><td>-</td><td>62.5% [50.0%, 75.0%]</td>" in page
    assert page.index("a plain reply") < page.index("a better reply")


def test_figures_that_are_no_numbers_are_left_out_of_curves() -> None:
    lines: list[dict[str, object]] = [
        {"step": 1, "a": 1.0},
        {"step": 2, "a": float("nan")},
        {"step": 3},
        {"step": 4, "a": 2.0},
    ]
    assert series(lines, "a") == [(1, 1.0), (4, 2.0)]


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no log\.jsonl"):
        write_report(tmp_path, evaluation=None)


def test_ticks_are_round_and_inside_the_axis() -> None:
    assert Axis(0.0, 1.0, 0, 100).ticks() == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Axis(-3.0, 113.0, 0, 100).ticks() == pytest.approx([0, 20, 40, 60, 80, 100])
    assert 3 <= len(Axis(1e-6, 3.3e-6, 0, 100).ticks()) <= 7


def test_a_curve_that_never_moves_is_drawn_in_the_middle() -> None:
    drawn = line_chart({"a": [(0, 5.0), (1, 5.0)]}, label="a", x_label="step")
    assert drawn.count("<polyline") == 1


def test_long_curves_are_smoothed_without_a_shift() -> None:
    line = [(float(step), 2.0 * step) for step in range(100)]
    assert all(mean == pytest.approx(2 * at) for at, mean in smoothed(line)[10:-10])
    assert line_chart({"a": line}, label="a", x_label="step").count("<polyline") == 2
