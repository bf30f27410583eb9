"""Slots behave as lists that are copied at each change, and the newest version shares its storage."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from flowrun.core.slots import Slots

CHANGES = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers()), max_size=40)


@given(st.lists(st.integers(), max_size=6), CHANGES, st.lists(st.integers(0, 99), max_size=20))
def test_every_version_is_as_a_list_of_its_own(
    items: list[int], changes: list[tuple[int, int, int]], reads: list[int]
) -> None:
    """Changes are made to any version, the newest or not, and versions are read in any order between them."""
    versions = [(Slots(items), list(items))]
    looks = iter(reads)
    for which, place, item in changes if items else ():
        slots, plain = versions[which % len(versions)]
        index = place % len(items)
        versions.append((slots.changed(index, item), [*plain[:index], item, *plain[index + 1 :]]))
        slots, plain = versions[next(looks, 0) % len(versions)]
        assert (slots[index], slots.get(index), slots.get(len(plain)), slots.get(-1)) == (plain[index],) * 2 + (
            None,
        ) * 2
        assert (list(slots), len(slots)) == (plain, len(plain))
    for _ in range(2):
        assert [list(slots) for slots, _ in versions] == [plain for _, plain in versions]
    for slots, plain in versions:
        for other, its in versions:
            assert (slots == other, slots != other) == (plain == its, plain != its)
        assert slots != plain


def test_a_change_of_the_newest_version_copies_nothing() -> None:
    item = object()
    versions = [Slots([item, *range(500)])]
    before = sys.getrefcount(item)
    for index in range(1, 501):
        versions.append(versions[-1].changed(index, None))
    assert sys.getrefcount(item) == before
    assert list(versions[0]) == [item, *range(500)]


def test_a_long_chain_of_versions_is_read_and_dropped() -> None:
    first = newest = Slots([0, 0])
    for number in range(100_000):
        newest = newest.changed(number % 2, number)
    assert list(first) == [0, 0]
    assert list(newest) == [99_998, 99_999]
    del newest, first
