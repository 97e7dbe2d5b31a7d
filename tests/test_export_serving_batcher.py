import threading
from functools import partial

import numpy as np
import pytest

from export.predictors import Seen
from export.serving import batcher as module
from export.serving.batcher import Full
from export.serving.uploads import Prepared


class Gate:
    """A network that waits until it is let through; it answers with each picture's first pixel."""

    def __init__(self):
        self.open, self.sizes = threading.Event(), []
        self.entered = threading.Semaphore(0)

    def __call__(self, images):
        self.sizes.append(len(images))
        self.entered.release()
        self.open.wait()
        return Seen(images[:, 0, 0, :2].astype(np.float32))


def picture(value):
    return bytes([value])


def prepare(content):
    """A file of one byte is a picture of that grey; one of none is damaged."""
    if not content:
        raise ValueError("damaged")
    return Prepared(np.full((4, 4, 3), content[0], np.uint8), (0, 0, 1, 1), (4, 4))


Batcher = partial(module.Batcher, prepare)


def test_a_damaged_picture_is_told_and_those_beside_it_are_computed():
    gate = Gate()
    batcher = Batcher(gate, largest=4, waiting=5)
    first = batcher.submit(picture(1))
    gate.entered.acquire()
    damaged, fine = batcher.submit(b""), batcher.submit(picture(7))
    gate.open.set()
    with pytest.raises(ValueError, match="damaged"):
        damaged.result()
    assert first.result()[1].probabilities[0] == 1 and fine.result()[1].probabilities[0] == 7
    assert gate.sizes == [1, 1]
    batcher.close()


def test_workers_share_what_waits():
    gate = Gate()
    batcher = Batcher(gate, largest=8, waiting=20, workers=2)
    futures = [batcher.submit(picture(value)) for value in (0, 1)]
    gate.entered.acquire()
    gate.entered.acquire()
    futures += [batcher.submit(picture(value)) for value in range(2, 8)]
    gate.open.set()
    assert [future.result()[1].probabilities[0] for future in futures] == list(range(8))
    assert max(gate.sizes) <= 4  # never all six
    batcher.close()


def test_what_waits_is_computed_together_and_each_gets_its_own_answer():
    gate = Gate()
    batcher = Batcher(gate, largest=4, waiting=20)
    futures = [batcher.submit(picture(0))]
    gate.entered.acquire()
    futures += [batcher.submit(picture(value)) for value in range(1, 7)]
    gate.open.set()
    assert [future.result()[1].probabilities.tolist() for future in futures] == [[value, value] for value in range(7)]
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
    assert all(future.result()[1].probabilities[0] == 9 for future in accepted)
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
    assert [future.result(0)[1].probabilities[0] for future in futures] == list(range(20))
    with pytest.raises(Full):
        batcher.submit(picture(1))
    batcher.close()


def test_an_error_reaches_who_waits_and_the_worker_lives_on():
    def compute(images):
        if images.max() == 13:
            raise ValueError("thirteen")
        return Seen(images[:, 0, 0, :2])

    batcher = Batcher(compute, largest=1, waiting=5)
    bad, good = batcher.submit(picture(13)), batcher.submit(picture(12))
    with pytest.raises(ValueError, match="thirteen"):
        bad.result()
    assert good.result()[1].probabilities[0] == 12
    batcher.close()


def test_a_picture_that_nobody_waits_for_any_more_stops_nothing():
    gate = Gate()
    batcher = Batcher(gate, largest=4, waiting=5)
    first = batcher.submit(picture(1))
    gate.entered.acquire()
    left, stayed = batcher.submit(picture(2)), batcher.submit(picture(3))
    assert left.cancel()
    gate.open.set()
    assert first.result()[1].probabilities[0] == 1 and stayed.result()[1].probabilities[0] == 3
    batcher.close()
