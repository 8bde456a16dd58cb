"""Stages that overlap: everything once, in bounded memory, and well ended."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from inference.pipeline import Stages, run_overlapped, stop_on_signals


class Counted:
    """Counts how many items are between load and the end of store."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.live = self.most = 0

    def load(self, item: int) -> int:
        with self.lock:
            self.live += 1
            self.most = max(self.most, self.live)
        return item

    def store(self, item: int, value: int) -> int:
        time.sleep(0.002)
        with self.lock:
            self.live -= 1
        return value + 1


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_every_item_once_in_bounded_memory(ahead):
    counted, results = Counted(), {}
    stages = Stages(counted.load, lambda item, loaded: 10 * loaded, counted.store)
    run_overlapped(range(20), stages, results.__setitem__, ahead)
    assert results == {item: 10 * item + 1 for item in range(20)}
    assert counted.most <= 2 * ahead + 1


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_in_any_stage_is_that_items_alone(ahead):
    def fail_at(number: int):
        def stage(item: int, *loaded: int) -> int:
            if item == number:
                raise ValueError(item)
            return item

        return stage

    results = {}
    run_overlapped(range(9), Stages(fail_at(2), fail_at(4), fail_at(6)), results.__setitem__, ahead)
    assert {item for item, result in results.items() if isinstance(result, ValueError)} == {2, 4, 6}
    assert len(results) == 9


def test_stages_overlap():
    """The stage of one item waits for that of another, which no order of single steps would satisfy."""
    second_loaded = threading.Event()

    def load(item: int) -> int:
        if item == 1:
            second_loaded.set()
        return item

    def compute(item: int, loaded: int) -> bool:
        return second_loaded.wait(timeout=10)

    results = {}
    run_overlapped(range(2), Stages(load, compute, lambda item, value: value), results.__setitem__, 1)
    assert results == {0: True, 1: True}


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_ctrl_c_reports_what_was_finished(ahead):
    stored, results = [], {}

    def compute(item: int, loaded: int) -> int:
        if item == 5:
            raise KeyboardInterrupt
        return item

    def store(item: int, value: int) -> int:
        time.sleep(0.01)
        stored.append(item)
        return value

    with pytest.raises(KeyboardInterrupt):
        run_overlapped(range(100), Stages(lambda item: item, compute, store), results.__setitem__, ahead)
    assert sorted(stored) == sorted(results) == [0, 1, 2, 3, 4]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to oneself")
@pytest.mark.parametrize("ahead", [0, 1, 2])
@pytest.mark.parametrize("moment", ["store", "done"])
def test_ctrl_c_does_not_come_between_a_file_and_its_row(ahead, moment):
    stored, rows = [], []

    def interrupt_at(now: str, item: int) -> None:
        if now == moment and item == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # the interpreter gets to it

    def store(item: int, value: int) -> int:
        stored.append(item)
        interrupt_at("store", item)
        return value

    def done(item: int, outcome: int) -> None:
        interrupt_at("done", item)
        rows.append(item)

    with pytest.raises(KeyboardInterrupt), stop_on_signals():
        run_overlapped(range(1000), Stages(lambda item: item, lambda item, value: value, store), done, ahead)
    assert 2 in rows and sorted(stored) == sorted(rows) and len(rows) < 1000


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send to oneself")
def test_a_stop_that_arrives_twice_is_one_and_the_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    cleaned_up = False
    with stop_on_signals():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        time.sleep(0.01)  # the interpreter gets to them
        cleaned_up = True
    assert cleaned_up
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
