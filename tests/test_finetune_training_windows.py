"""Training on rows that stay in the store: each once an epoch, well mixed, by the graph that rows in memory have."""

from dataclasses import replace

import numpy as np
import pytest

import finetune.storage.rows
from datasets.base import InputError
from finetune.config import TrainConfig
from finetune.evaluation.calibrate import calibrate
from finetune.evaluation.evaluate import evaluate
from finetune.features.resample import resampled
from finetune.metrics import nearest_class_mean
from finetune.storage.chunk import KEY
from finetune.storage.rows import StoredRows, held
from finetune.storage.store import FeatureStore
from finetune.training import windows
from finetune.training.networks import Head
from finetune.training.predictor import Predictor
from finetune.training.trainer import Trainer
from finetune.training.windows import Windows

D, C, N = 12, 3, 600
CONFIG = TrainConfig(epochs=6, batch_size=8, learning_rate=0.05, l2=0.0, patience=0)


@pytest.fixture
def data():
    """(x (N, D), y (N,)), class after class, as folders are."""
    rng = np.random.default_rng(0)
    y = np.sort(rng.integers(0, C, N)).astype(np.int32)
    return (np.eye(C, D)[y] * 2 + rng.normal(0, 0.7, (N, D))).astype(np.float32), y


@pytest.fixture
def stored(data, tmp_path, monkeypatch) -> StoredRows:
    """The same rows on the disk, in chunks of 50, and windows of 64 of them."""
    monkeypatch.setattr(windows, "BLOCK_ROWS", 4)
    monkeypatch.setattr(windows, "WINDOW_BYTES", 64 * D * 4)
    monkeypatch.setattr("finetune.training.trainer.STEPS_A_CALL", 4)
    monkeypatch.setattr(finetune.storage.rows, "HELD_BYTES", 1000)
    keys = [f"{n:032d}".encode() for n in range(N)]
    store = FeatureStore(tmp_path, {})
    for start in range(0, N, 50):
        store.write_chunk(keys[start : start + 50], data[0][start : start + 50])
    return StoredRows(store, np.array(keys, KEY))


def trainer_of(x, y, config=CONFIG, valid=None) -> Trainer:
    return Trainer(Head(D, C, seed=1), (x, y), valid or (np.empty((0, D), np.float32), y[:0]), config, C, 1)


def test_an_epoch_takes_each_row_once(stored, data):
    trainer = trainer_of(stored, data[1])
    seen = []
    read = trainer.windows.read

    def note(places):
        seen.append(places)
        return read(places)

    trainer.windows.read = note
    trainer.fit(np.arange(0, N, 2), on_epoch=lambda line: None)
    assert [len(places) for places in seen[:5]] == [64, 64, 64, 64, 44]
    epochs = np.concatenate(seen).reshape(CONFIG.epochs, -1)
    assert all(np.array_equal(np.sort(epoch), np.arange(0, N, 2)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


def test_a_window_has_rows_of_everywhere(stored):
    order = Windows(stored, 8, 4).draw_order(np.arange(N), np.random.default_rng(1))
    first = order[:64]
    assert first.max() > 0.8 * N and first.min() < 0.2 * N
    assert (np.abs(np.diff(first)) > 4).mean() > 0.8  # and no block in one piece


@pytest.mark.parametrize("sampling", ["each", "balanced"])
def test_it_learns_what_rows_in_memory_teach(stored, data, sampling):
    x, y = data
    config = replace(CONFIG, sampling=sampling)
    accuracies, losses = [], []
    for rows in (x, stored):
        trainer = trainer_of(rows, y, config)
        fitted = trainer.fit(on_epoch=lambda line: None)
        accuracies.append(evaluate(Predictor(trainer.network), rows, y, tuple("abc")).metrics["accuracy"])
        losses.append(fitted.history[-1].train_loss)
    assert min(accuracies) > 0.9 and abs(accuracies[0] - accuracies[1]) < 0.03
    assert losses[1] == pytest.approx(losses[0], abs=0.05)


def test_one_graph_serves_all_windows_and_one_seed_gives_the_same_bytes(stored, data):
    weights = []
    for _ in range(2):
        trainer = trainer_of(stored, data[1])
        trainer.fit(on_epoch=lambda line: None)
        assert len(trainer.phases[0].train_steps.compile_cache) == 1
        weights.append([parameter.asnumpy().tobytes() for parameter in trainer.network.get_parameters()])
    assert weights[0] == weights[1]


def test_where_rows_lie_on_the_disk_does_not_change_the_order(stored, tmp_path):
    """The same rows in chunks that were written the other way round, and merged."""
    other = FeatureStore(tmp_path / "other", {})
    keys = stored.keys.tolist()
    for start in range(N - 50, -50, -50):
        other.write_chunk(keys[start : start + 50], stored[start : start + 50])
    other.merge()
    moved = StoredRows(other, stored.keys)
    assert not np.array_equal(moved.row, stored.row)
    orders = [Windows(x, 8, 4).draw_order(np.arange(N), np.random.default_rng(1)) for x in (stored, moved)]
    assert np.array_equal(*orders)


def test_resampling_of_rows_on_the_disk_is_refused(stored, data):
    for settings in ({"oversample": "random"}, {"undersample": True}):
        with pytest.raises(InputError, match="class_weights=balanced"):
            resampled(stored, data[1], replace(CONFIG, **settings), 1)
    assert resampled(stored, data[1], CONFIG, 1)[0] is stored


def test_views_of_stored_rows(stored, data):
    """Of N / 2 pictures two views."""
    trainer = trainer_of(stored, data[1][: N // 2])
    assert trainer.view_count == 2 and trainer.x.shape == (N // 2, D)
    seen, read = [], trainer.windows.read
    trainer.windows.read = lambda places: seen.append(places) or read(places)
    trainer.fit(on_epoch=lambda line: None)
    assert all(len(np.unique(epoch % (N // 2))) == N // 2 for epoch in np.concatenate(seen).reshape(CONFIG.epochs, -1))
    assert np.concatenate(seen).max() >= N // 2


def test_everybody_takes_stored_rows(stored, data):
    x, y = data
    trainer = trainer_of(stored, y, valid=(stored.part(np.arange(0, N, 3)), y[::3]))
    fitted = trainer.fit(on_epoch=lambda line: None)
    assert fitted.history[-1].valid_accuracy > 0.9
    assert calibrate(trainer, 3).accuracy > 0.9
    assert nearest_class_mean(stored, y, stored, y) == nearest_class_mean(x, y, x, y)
    assert trainer.digest(np.arange(N)) != trainer.digest(np.arange(N - 1))


def test_few_rows_are_held_in_memory(stored, data):
    few, many = np.arange(5, 15), np.arange(100)
    assert isinstance(held(stored, few), np.ndarray) and isinstance(held(stored, many), StoredRows)
    assert isinstance(held(data[0], many), np.ndarray) and isinstance(held(stored), StoredRows)
    for rows in (few, many):
        assert np.array_equal(held(stored, rows)[:], data[0][rows])
