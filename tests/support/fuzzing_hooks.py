"""What Schemathesis, which loads this, is told of this API beside its document: how a body of records is made."""

from __future__ import annotations

import gzip
import json
from typing import Any

import schemathesis
from hypothesis import strategies as st

_NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.integers(0, 50))
_TEXT = st.text(max_size=20)
_VALUES = st.dictionaries(
    st.one_of(
        st.sampled_from(["loss", "seconds", "samples", "samples_per_s", "epoch", "steps", "accuracy", "cpu_s"]), _TEXT
    ),
    st.one_of(_NUMBERS, _TEXT, st.lists(st.one_of(_NUMBERS, _TEXT), max_size=3)),
    max_size=5,
)
_RECORD = st.fixed_dictionaries(
    {
        "v": st.sampled_from([1, 1, 1, 1, 2, None]),
        "attempt": st.integers(1, 3),
        "rank": st.integers(0, 3),
        "seq": st.integers(1, 50),
        "time": st.one_of(st.floats(0, 2e9), st.integers(0, 2**40)),
        "kind": st.one_of(
            st.sampled_from(["start", "step", "evaluation", "usage", "gap", "end", "placement", "verdict"]), _TEXT
        ),
        "step": st.one_of(st.none(), st.integers(-5, 100), st.integers(-(2**64), 2**64)),
        "values": _VALUES,
    }
)
_LINES = st.lists(_RECORD.map(lambda record: json.dumps(record).encode()), max_size=5).map(b"\n".join)
BODIES = st.one_of(_LINES, _LINES, _LINES.map(gzip.compress), st.binary(max_size=200))

schemathesis.openapi.media_type("application/x-ndjson", BODIES)


@schemathesis.serializer("application/x-ndjson")
def records(_context: Any, value: Any) -> bytes:
    """The body as it was made."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
