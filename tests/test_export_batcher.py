import threading

import numpy as np
import pytest

from export.batcher import Batcher, Full


class Gate:
    """A network that waits until it is let through; it answers with each picture's first pixel."""

    def __init__(self):
        self.open, self.sizes = threading.Event(), []
        self.entered = threading.Semaphore(0)

    def __call__(self, images):
        self.sizes.append(len(images))
        self.entered.release()
        self.open.wait()
        return images[:, 0, 0, :2].astype(np.float32), None


def picture(value):
    return np.full((4, 4, 3), value, np.uint8)


def test_what_waits_is_computed_together_and_each_gets_its_own_answer():
    gate = Gate()
    batcher = Batcher(gate, largest=4, waiting=20)
    futures = [batcher.submit(picture(0))]
    gate.entered.acquire()
    futures += [batcher.submit(picture(value)) for value in range(1, 7)]
    gate.open.set()
    assert [future.result()[0].tolist() for future in futures] == [[value, value] for value in range(7)]
    assert gate.sizes == [1, 4, 2]
    batcher.close()


def test_the_queue_is_bounded():
    gate = Gate()
    batcher = Batcher(gate, largest=4, waiting=3)
    accepted = [batcher.submit(picture(9))]
    gate.entered.acquire()
    accepted += [batcher.submit(picture(9)) for _ in range(3)]
    with pytest.raises(Full):
        batcher.submit(picture(9))
    gate.open.set()
    assert all(future.result()[0][0] == 9 for future in accepted)
    batcher.close()


@pytest.mark.parametrize("workers", [1, 3])
def test_closing_finishes_what_was_accepted(workers):
    gate = Gate()
    batcher = Batcher(gate, largest=2, waiting=50, workers=workers)
    futures = [batcher.submit(picture(value)) for value in range(20)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    gate.open.set()
    closing.join()
    assert [future.result(0)[0][0] for future in futures] == list(range(20))
    with pytest.raises(Full):
        batcher.submit(picture(1))
    batcher.close()


def test_an_error_reaches_who_waits_and_the_worker_lives_on():
    def compute(images):
        if images.max() == 13:
            raise ValueError("thirteen")
        return images[:, 0, 0, :2], None

    batcher = Batcher(compute, largest=1, waiting=5)
    bad, good = batcher.submit(picture(13)), batcher.submit(picture(12))
    with pytest.raises(ValueError, match="thirteen"):
        bad.result()
    assert good.result()[0][0] == 12
    batcher.close()


def test_a_picture_that_nobody_waits_for_any_more_stops_nothing():
    gate = Gate()
    batcher = Batcher(gate, largest=4, waiting=5)
    first = batcher.submit(picture(1))
    gate.entered.acquire()
    left, stayed = batcher.submit(picture(2)), batcher.submit(picture(3))
    assert left.cancel()
    gate.open.set()
    assert first.result()[0][0] == 1 and stayed.result()[0][0] == 3
    batcher.close()
