"""The bounded pool: every item once and in order, few taken ahead, an error is one item's alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext

import pytest

from common.pool import bounded_map


def pool(threads: int) -> Executor | nullcontext[None]:
    return ThreadPoolExecutor(threads) if threads else nullcontext()


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_come_in_order_and_items_are_taken_only_a_little_ahead(threads):
    taken, most = [], 0

    def slow_first(item: int) -> int:
        time.sleep(0.003 * (3 - item % 3))  # later items are done sooner
        return 10 * item

    with pool(threads) as executor:
        results = []
        for item, result in bounded_map(executor, slow_first, (taken.append(i) or i for i in range(20)), ahead=4):
            most = max(most, len(taken) - len(results))
            results.append((item, result))
    assert results == [(item, 10 * item) for item in range(20)]
    assert most == (4 if threads else 1)


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_is_that_items_alone(threads):
    def fail_at_2(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    with pool(threads) as executor:
        results = dict(bounded_map(executor, fail_at_2, range(5), ahead=2))
    assert isinstance(results.pop(2), ValueError) and results == {0: 0, 1: 1, 3: 3, 4: 4}


def test_items_overlap():
    """Two items wait for each other, which no order of single steps would satisfy."""
    both = threading.Barrier(2, timeout=10)
    with ThreadPoolExecutor(2) as executor:
        results = [result for _, result in bounded_map(executor, lambda item: both.wait(), range(2), ahead=2)]
    assert sorted(results) == [0, 1]


def test_a_caller_that_stops_leaves_no_item_running_and_none_begun():
    begun, finished = [], []

    def work(item: int) -> None:
        begun.append(item)
        time.sleep(0.05)
        finished.append(item)

    with pytest.raises(KeyboardInterrupt), ThreadPoolExecutor(1) as executor:
        for item, _ in bounded_map(executor, work, range(100), ahead=50):
            if item == 1:
                raise KeyboardInterrupt
    assert begun == finished and len(begun) < 10
