"""Prometheus text, version 0.0.4: families of samples as lines.

Owns nothing, reads and writes nothing; pure functions that the control process calls at a scrape.
What must stay true: within a histogram, buckets never fall and the last equals the count, because
both come from the same copy of the row.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from fastpath.histogram import bucket_bounds

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Latencies are some hundred microseconds when all is well and some seconds when a deadline was missed.
BOUNDS_S = (
    *(10e-6, 25e-6, 50e-6, 100e-6, 150e-6, 200e-6, 300e-6, 400e-6, 600e-6, 800e-6),
    *(1e-3, 1.5e-3, 2e-3, 2.5e-3, 3e-3, 4e-3, 5e-3, 6e-3, 8e-3, 10e-3),
    *(15e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0, 10.0),
)
BELOW = np.searchsorted(bucket_bounds(), np.rint(np.array(BOUNDS_S) * 1e9), side="right")  # buckets wholly below

Labels = dict[str, str]


def family(name: str, kind: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Iterator[str]:
    """Lines of one counter or gauge; nothing at all where it has no samples."""
    lines = [f"{name}{_braces(labels)} {number(value)}" for labels, value in samples]
    return iter([*_head(name, kind, text), *lines] if lines else [])


def histogram(name: str, text: str, rows: Iterable[tuple[Labels, np.ndarray]]) -> Iterator[str]:
    """Lines of histograms in seconds from `histogram_row` records, one for each set of labels."""
    lines: list[str] = []
    for labels, row in rows:
        below = np.concatenate([np.zeros(1, np.uint64), np.cumsum(row["buckets"])])  # one reading for all lines
        for bound, count in zip(BOUNDS_S, below[BELOW], strict=True):
            lines.append(f"{name}_bucket{_braces({**labels, 'le': number(bound)})} {count}")
        lines.append(f"{name}_bucket{_braces({**labels, 'le': '+Inf'})} {below[-1]}")
        lines.append(f"{name}_sum{_braces(labels)} {number(int(row['sum_ns']) / 1e9)}")
        lines.append(f"{name}_count{_braces(labels)} {below[-1]}")
    return iter([*_head(name, "histogram", text), *lines] if lines else [])


def number(value: float) -> str:
    """Shortest text that reads back as the same number."""
    return str(int(value)) if value == int(value) else f"{value:.12g}"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _braces(labels: Labels) -> str:
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
