"""Drawings as inline SVG, whose colours are those of the page around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 400, 250  # about the width of a phone, so that the letters are as large there as they should be
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 10, 10, 38

Point = tuple[float, float]


def _text(x: float, y: float, text: str, anchor: str = 'middle', extra: str = '') -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _number(value: float) -> str:
    return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:g}'


def round_numbers(low: float, high: float, number: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, about as many as asked for."""
    if not high > low:
        return [low]
    rough = (high - low) / number
    size = 10 ** math.floor(math.log10(rough))
    size *= next(m for m in (1, 2, 5, 10) if m * size >= rough * 0.999)
    first = math.ceil(low / size - 1e-9)
    return [round(i * size, 10) for i in range(first, math.floor(high / size + 1e-9) + 1)]


def log_steps(low: float, high: float) -> list[float]:
    """Powers of ten from ``low`` to ``high``, and where that is little, their doubles and fives, too."""
    low = max(low, 1) if high >= 1 else low  # counts have no fractions
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
        if len(found) >= 3:
            return found
    return found or [low]


class Axes:
    """A frame with two axes, into which things are drawn.

    Args:
        x (tuple[float, float]): Least and largest of the horizontal axis.
        y (tuple[float, float]): Those of the vertical axis.
        labels (tuple[str, str]): Of both axes.
        title (str): What the drawing shows, for readers who do not see it.
        log_x (bool): Whether the horizontal axis is logarithmic.
            Defaults to False.
    """

    def __init__(self, x: Point, y: Point, labels: tuple[str, str], title: str, log_x: bool = False):
        self._scale: Callable[[float], float] = math.log10 if log_x else float
        self._x, self._y = x, y
        self._title, self._log = title, log_x
        self.parts = self._frame(*labels)

    def at(self, x: float, y: float) -> Point:
        """Place of a point in the drawing."""
        low, high = map(self._scale, self._x)
        across = (self._scale(x) - low) / ((high - low) or 1)
        up = (y - self._y[0]) / ((self._y[1] - self._y[0]) or 1)
        return (
            _LEFT + across * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM),
        )

    def _frame(self, label_x: str, label_y: str) -> list[str]:
        bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
        parts = []
        for value in round_numbers(*self._y):
            y = self.at(self._x[0], value)[1]
            parts += [_line(_LEFT, y, right, y, 'grid'), _text(_LEFT - 5, y + 4, _number(value), 'end')]
        for value in log_steps(*self._x) if self._log else round_numbers(*self._x):
            x = self.at(value, self._y[0])[0]
            # The last number would be cut at the edge.
            anchor = 'end' if x > right - 8 else 'middle'
            parts += [_line(x, bottom, x, bottom + 4, 'axis'), _text(x, bottom + 16, _number(value), anchor)]
        parts.append(_line(_LEFT, bottom, right, bottom, 'axis'))
        parts.append(_text((_LEFT + right) / 2, HEIGHT - 6, label_x))
        middle = (_TOP + bottom) / 2
        parts.append(_text(11, middle, label_y, extra=f' transform="rotate(-90 11 {middle:.1f})"'))
        return parts

    def svg(self) -> str:
        """The drawing."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self._title)}">'
            f'{"".join(self.parts)}</svg>'
        )


def class_scatter(classes: Sequence[dict], label: str) -> str:
    """The figure of every class over its training images.

    Args:
        classes (Sequence[dict]): See :class:`RunData`.
        label (str): Of the vertical axis.

    Returns:
        str: SVG; classes that lie on one pixel share a point.
    """
    known = [c for c in classes if c['figure'] is not None]
    sizes = [max(c['train_images'], 0.5) for c in known] or [1]  # a class without images stands left of one
    axes = Axes((min(sizes) / 1.3, max(sizes) * 1.3), (0, 100), ('training images', label), label, log_x=True)
    places: dict[tuple[int, int, str], list[dict]] = {}
    for c, size in zip(known, sizes):
        x, y = axes.at(size, c['figure'])
        places.setdefault((round(x), round(y), c['shot']), []).append(c)
    for (x, y, shot), own in places.items():
        first = own[0]
        more = f' and {len(own) - 1} more' if len(own) > 1 else ''
        told = f'{first["name"]}{more}: {first["train_images"]} training images, {first["figure"]:.1f} %'
        axes.parts.append(
            f'<circle cx="{x}" cy="{y}" r="3.5" class="dot {shot}"><title>{escape(told)}</title></circle>'
        )
    return axes.svg()


def reliability_chart(bins: Sequence[dict]) -> str:
    """Accuracy over confidence, bin by bin.

    Args:
        bins (Sequence[dict]): See :func:`numbers.calibration`.

    Returns:
        str: SVG. Bars are the accuracy, lines the confidence; bars with fewer
        pictures are paler.
    """
    title = 'accuracy in percent'
    axes = Axes((0, 100), (0, 100), ('confidence in percent', title), 'Accuracy over confidence')
    most = max((b['images'] for b in bins), default=1)
    for b in bins:
        if not b['images']:
            continue
        (left, top), (right, bottom) = axes.at(b['low'], b['accuracy']), axes.at(b['high'], 0)
        told = (
            f'{b["images"]} pictures with {b["low"]:.0f} to {b["high"]:.0f} % confidence: '
            f'{b["accuracy"]:.1f} % right, {b["confidence"]:.1f} % confident'
        )
        strength = 0.35 + 0.65 * math.sqrt(b['images'] / most)
        axes.parts.append(
            f'<rect x="{left + 0.5:.1f}" y="{top:.1f}" width="{right - left - 1:.1f}" height="{bottom - top:.1f}" '
            f'class="bar" opacity="{strength:.2f}"><title>{escape(told)}</title></rect>'
        )
        y = axes.at(0, b['confidence'])[1]
        axes.parts.append(_line(left + 0.5, y, right - 0.5, y, 'mark'))
    axes.parts.append(_line(*axes.at(0, 0), *axes.at(100, 100), 'diagonal'))
    return axes.svg()


def curves(lines: Mapping[str, tuple[str, Sequence[Point]]], labels: tuple[str, str], percent: bool = False) -> str:
    """Lines over the training.

    Args:
        lines (Mapping[str, tuple]): By name the classes of its style, with
            'points' among them for lines with dots, and its points.
        labels (tuple[str, str]): Of both axes.
        percent (bool): Whether values go to 100 at most. Defaults to False.

    Returns:
        str: SVG; what is not finite is left out.
    """
    kept = {
        name: (kind, [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)])
        for name, (kind, points) in lines.items()
    }
    every = [point for _, points in kept.values() for point in points] or [(0, 0)]
    low, high = min(y for _, y in every), max(y for _, y in every)
    space = (high - low) * 0.06 or 1
    bounds = (max(low - space, 0) if low >= 0 else low - space, min(high + space, 100) if percent else high + space)
    axes = Axes((0, max(max(x for x, _ in every), 1)), bounds, labels, f'{labels[1]} over {labels[0]}')
    for name, (kind, points) in kept.items():
        points = points[:: max(len(points) // 400, 1)]  # more than there are pixels
        placed = [axes.at(*point) for point in points]
        path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in placed)
        axes.parts.append(f'<polyline points="{path}" class="line {kind}"><title>{escape(name)}</title></polyline>')
        if 'points' in kind.split():
            axes.parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="dot {kind}">'
                f'<title>{escape(name)}, {labels[0]} {point[0]:g}: {point[1]:.4g}</title></circle>'
                for (x, y), point in zip(placed, points)
            ]
    return axes.svg()
