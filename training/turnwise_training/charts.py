"""Draws curves and calibration plots as SVG that needs no script; colours come from the page's style sheet."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 380, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 30
SMOOTH_FROM = 60
"""A curve of so many points is drawn pale, with its moving average over it."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """Where the values of one direction lie on the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a value, in units of the drawing."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return three to six round values inside the axis."""
        rough = (self.high - self.low) / 6
        size = 10 ** math.floor(math.log10(rough))
        step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def line_chart(series: Mapping[str, Points], *, label: str, x_label: str, connected: bool = True) -> Markup:
    """Return curves, or points where they are not `connected`, one colour a series."""
    points = [point for curve in series.values() for point in curve]
    x = _axis([at for at, _ in points], LEFT, WIDTH - RIGHT, room=0.0 if connected else 0.05)
    y = _axis([value for _, value in points], HEIGHT - BOTTOM, TOP, room=0.05)
    drawn = [
        part
        for number, curve in enumerate(series.values())
        for part in (_curve(curve, x, y, number) if connected else _dots(curve, x, y, number))
    ]
    return _drawing([*_grid(x, y, x_label), *drawn], label)


def calibration_chart(bins: Sequence[Mapping[str, float | None]]) -> Markup:
    """Return predicted against observed shares, the size of a dot by its pairs, and the diagonal they should lie on."""
    x = Axis(0.5, 1.0, LEFT, WIDTH - RIGHT)
    y = Axis(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    parts = [*_grid(x, y, "predicted share"), _path([(0.5, 0.5), (1.0, 1.0)], x, y, "ideal")]
    most = max(bin_["pairs"] or 0 for bin_ in bins)
    for bin_ in bins:
        predicted, observed, pairs = bin_["predicted"], bin_["observed"], bin_["pairs"]
        if predicted is not None and observed is not None and pairs:
            radius = 3 + 6 * math.sqrt(pairs / most)
            title = f"{pairs:.0f} pairs: predicted {predicted:.2f}, observed {observed:.2f}"
            parts.append(_dot(x(predicted), y(observed), radius, 0, title))
    return _drawing(parts, "calibration: observed against predicted share")


def smoothed(curve: Points) -> Points:
    """Return the mean of each point and of those up to a fortieth of the curve before and after it."""
    reach = max(1, len(curve) // 40)
    values = [value for _, value in curve]
    means = []
    for index in range(len(values)):
        around = values[max(0, index - reach) : index + reach + 1]
        means.append(sum(around) / len(around))
    return [(at, mean) for (at, _), mean in zip(curve, means, strict=True)]


def _axis(values: Sequence[float], start: float, end: float, *, room: float) -> Axis:
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    space = room * (high - low)
    return Axis(low - space, high + space, start, end)


def _curve(curve: Points, x: Axis, y: Axis, number: int) -> list[Markup]:
    if len(curve) < SMOOTH_FROM:
        return [_path(curve, x, y, f"curve c{number}")]
    return [_path(curve, x, y, f"curve pale c{number}"), _path(smoothed(curve), x, y, f"curve c{number}")]


def _dots(curve: Points, x: Axis, y: Axis, number: int) -> list[Markup]:
    return [_dot(x(at), y(value), 3, number, f"{at:.4g}, {value:.4g}") for at, value in curve]


def _path(curve: Points, x: Axis, y: Axis, kind: str) -> Markup:
    places = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in curve)
    return Markup('<polyline class="{}" points="{}"/>').format(kind, places)


def _dot(x: float, y: float, radius: float, number: int, title: str) -> Markup:
    return Markup('<circle class="dot c{}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
        number, f"{x:.1f}", f"{y:.1f}", f"{radius:.1f}", title
    )


def _grid(x: Axis, y: Axis, x_label: str) -> list[Markup]:
    line = Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    text = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>')
    parts = []
    for tick in y.ticks():
        place = f"{y(tick):.1f}"
        parts.append(line.format(LEFT, WIDTH - RIGHT, place, place))
        parts.append(text.format(LEFT - 6, f"{y(tick) + 3.5:.1f}", "end", f"{tick:.4g}"))
    below = HEIGHT - BOTTOM + 13
    parts += [text.format(f"{x(tick):.1f}", below, "middle", f"{tick:.4g}") for tick in x.ticks()]
    return [*parts, text.format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3, "middle", x_label)]


def _drawing(parts: Sequence[Markup], label: str) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, Markup("").join(parts)
    )
