"""Numbers of a sentence as people read them, with their units. Pure."""

from __future__ import annotations


def figure(value: float) -> str:
    """Three figures at least, and no zeros behind the point: 118, 1.25, 12,345."""
    if abs(_rounded(value)) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _rounded(value: float) -> float:
    """As it is shown: just below a unit's end it is the next one, 1 s and not 1,000 ms."""
    return float(f"{value:.3g}")


def seconds_in_words(seconds: float) -> str:
    """Such as ``40 ms``."""
    shown = _rounded(seconds)
    if shown < 1e-3:
        return f"{figure(seconds * 1e6)} µs"
    return f"{figure(seconds * 1e3)} ms" if shown < 1 else f"{figure(seconds)} s"


def bytes_in_words(count: float) -> str:
    """In binary units, such as ``1 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if round(count) < 1024:
            return f"{figure(count)} {unit}"
        count /= 1024
    return f"{figure(count)} GiB"


def rate_in_words(bytes_per_s: float) -> str:
    """In decimal units, as network links are sold, such as ``118 MB/s``."""
    for unit in ("B/s", "kB/s", "MB/s"):
        if _rounded(bytes_per_s) < 1000:
            return f"{figure(bytes_per_s)} {unit}"
        bytes_per_s /= 1000
    return f"{figure(bytes_per_s)} GB/s"
