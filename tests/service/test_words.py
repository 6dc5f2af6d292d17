"""Numbers in a sentence: rounded first, and only then in the form and the unit that they have then."""

from __future__ import annotations

import pytest

from lockstep_service.metrics.words import bytes_in_words, figure, rate_in_words, seconds_in_words


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (1.25, "1.25"), (118.2, "118"), (999.4, "999"), (999.6, "1,000"), (-999.6, "-1,000"), (12345, "12,345")],
)
def test_a_figure(value: float, said: str) -> None:
    assert figure(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "40 ms"), (0.9994, "999 ms"), (0.9996, "1 s"), (0.0009996, "1 ms"), (1.2e-5, "12 µs"), (999.6, "1,000 s")],
)
def test_seconds(seconds: float, said: str) -> None:
    assert seconds_in_words(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(1000, "1,000 B"), (1023.6, "1 KiB"), (1 << 20, "1 MiB"), (1023.4 * 1024, "1,023 KiB"), (1023.9 * 2**20, "1 GiB")],
)
def test_bytes(count: float, said: str) -> None:
    assert bytes_in_words(count) == said


@pytest.mark.parametrize(
    ("rate", "said"), [(118e6, "118 MB/s"), (999.6, "1 kB/s"), (999.6e6, "1 GB/s"), (999.4e6, "999 MB/s")]
)
def test_rates(rate: float, said: str) -> None:
    assert rate_in_words(rate) == said
