"""What the tests of pictures share: the batch described once more, step by step, without the code under test."""

from __future__ import annotations

from hypothesis import strategies as st

EIGHT = [4, 6, 8, 5, 4, 3, 7, 8]

# With a row to draw; sometimes far too many steps or sequences for any screen.
drawable = st.one_of(
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.lists(st.integers(0, 300), min_size=1, max_size=40),
    st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=6),
    st.builds(
        lambda few, count: few * count,
        st.lists(st.integers(0, 4_000), min_size=1, max_size=9),
        st.integers(1, 70),
    ),
).filter(any)
small = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)


def order_of(lengths: list[int]) -> list[int]:
    """Indices, longest first, by picking the first longest that is left."""
    left, order = list(range(len(lengths))), []
    while left:
        best = left[0]
        for i in left:
            if lengths[i] > lengths[best]:
                best = i
        left.remove(best)
        order.append(best)
    return order


def steps_of(lengths: list[int]) -> list[list[int]]:
    """The sequences that run at each step, in the order in which their rows lie in memory."""
    order = order_of(lengths)
    return [[i for i in order if lengths[i] > step] for step in range(max(lengths))]
