"""Figures as one aligned table: a value, what it is beside, their ratio, and what is promised."""

from dataclasses import dataclass


@dataclass
class Row:
    """One figure."""

    what: str
    value: float
    unit: str
    beside: str = ""
    """What was measured in the same run, and..."""
    other: float | None = None
    """...its value."""
    at_most: float | None = None
    at_least: float | None = None
    """What is promised of the value."""
    note: str = ""

    def verdict(self) -> str:
        for bound, sign, met in (
            (self.at_most, "<=", self.at_most is not None and self.value <= self.at_most),
            (self.at_least, ">=", self.at_least is not None and self.value >= self.at_least),
        ):
            if bound is not None:
                return f"{sign} {figure(bound)} {'met' if met else 'MISSED'}"
        return ""

    def cells(self) -> list[str]:
        has_other = self.other is not None
        ratio = f"{self.value / self.other:.2f}" if has_other and self.other else ""
        other = figure(self.other) if has_other else ""
        return [self.what, figure(self.value), self.unit, self.beside, other, ratio, self.verdict(), self.note]


HEADER = ["figure", "value", "unit", "beside", "value", "ratio", "target", "note"]
NUMBERS = {1, 4, 5}


def render(rows: list[Row]) -> str:
    """The table, without a line's end after its last line."""
    lines = [HEADER, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]

    def line(cells):
        padded = (
            cell.rjust(width) if column in NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths))
        )
        return "  ".join(padded).rstrip()

    return "\n".join(map(line, lines))


def figure(value: float) -> str:
    """Three digits are what such figures are worth."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.4f}"


def percentile(samples: list[float], percent: float) -> float:
    """The sample that so many percent of the others do not exceed."""
    ordered = sorted(samples)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


def median(samples: list[float]) -> float:
    return percentile(samples, 50)
