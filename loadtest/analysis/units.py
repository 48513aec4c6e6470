"""Numbers with units, as text."""

from typing import Literal


def duration(seconds: float) -> str:
    """Three digits and a suitable unit: `870 µs`, `1.23 ms`, `45.6 s`."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if abs(seconds) >= 0.9995 * scale:
            return f"{three_digits(seconds / scale)} {unit}"
    return f"{three_digits(seconds / 1e-6)} µs" if seconds else "0"


def three_digits(value: float) -> str:
    """Three significant digits, but no fewer than there are before the point."""
    size = abs(value)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text and float(text) == int(float(text)) else text


def show(value: float, unit: Literal["s", "1/s", "share", "ratio", ""]) -> str:
    """A figure in its unit."""
    if unit == "s":
        return duration(value)
    if unit == "share":
        return f"{100 * value:.1f} %"
    return f"{value:.0f}" if unit == "" else three_digits(value)
