import re
from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest

import finetune.training.trainer
from datasets.base import InputError
from finetune.config import TrainConfig
from finetune.evaluation.evaluate import evaluate
from finetune.training.networks import Head
from finetune.training.optimizers import learning_rates, make_optimizer
from finetune.training.predictor import Predictor
from finetune.training.step import TrainStep, TrainSteps
from finetune.training.trainer import Trainer, class_weights, log_line

D, C = 12, 3
QUICK = TrainConfig(epochs=12, batch_size=16, learning_rate=0.05, l2=0.0, patience=0)


def blobs(count: int, seed: int = 0, noise: float = 0.7):
    """(x (N, D), y (N,)): C clouds around fixed corners."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, C, count).astype(np.int32)
    x = np.eye(C, D)[y] * 2 + rng.normal(0, noise, (count, D))
    return x.astype(np.float32), y


def train(config=QUICK, seed=1, head=None, data=None, valid=None):
    head = head or Head(D, C, seed=seed)
    trainer = Trainer(head, data or blobs(100), valid or blobs(60, seed=9), config, C, seed)
    fitted = trainer.fit(on_epoch=lambda line: None)
    return head, fitted


def weights_of(head):
    return [parameter.asnumpy().tobytes() for parameter in head.get_parameters()]


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "momentum"}, {"label_smoothing": 0.1, "weight_decay": 0.001}, {"l1": 0.001, "l2": 0.001},
     {"class_weights": "balanced"}, {"batch_size": 1000, "epochs": 40}],
    ids=str,
)  # fmt: skip
def test_it_learns_with_every_option(changes):
    x, y = blobs(200, seed=5)
    before = evaluate(Predictor(Head(D, C)), x, y, tuple("abc")).metrics["accuracy"]
    head, fitted = train(replace(QUICK, **changes))
    after = evaluate(Predictor(head), x, y, tuple("abc")).metrics["accuracy"]
    assert before < 0.75 < 0.9 < after
    assert fitted.history[-1].train_loss < fitted.history[0].train_loss


@pytest.mark.parametrize("given, rows, wanted", [(None, 12, 1), (None, 65, 3), (None, 5000, 64), (50, 12, 50)])
def test_few_rows_get_steps_enough(given, rows, wanted):
    trainer = Trainer(Head(D, C), blobs(rows), blobs(0), TrainConfig(batch_size=given), C, 1)
    assert trainer.batch_size == wanted
    assert given or trainer.steps(rows) >= min(rows, 20)


def test_a_hidden_layer_and_dropout_learn_what_a_line_cannot():
    x = np.random.default_rng(0).uniform(-1, 1, (400, 2)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int32)
    config = replace(QUICK, epochs=30)
    for hidden, low, high in ((0, 0.0, 0.7), (32, 0.9, 1.0)):
        head = Head(2, 2, hidden=hidden, dropout=0.05 if hidden else 0.0)
        Trainer(head, (x, y), (x[:0], y[:0]), config, 2, 1).fit(on_epoch=lambda line: None)
        assert low <= (Predictor(head)(x).argmax(1) == y).mean() <= high


def test_one_seed_gives_the_same_bytes():
    config = replace(QUICK, label_smoothing=0.1, class_weights="balanced")
    first, second, other = (weights_of(train(config, seed)[0]) for seed in (1, 1, 2))
    assert first == second != other


def numpy_loss(w, b, x, y, row_weights, config):
    logits = x @ w.T + b
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = np.full((len(y), C), config.label_smoothing / C)
    target[np.arange(len(y)), y] += 1 - config.label_smoothing
    data = (-(target * log_p).sum(1) * row_weights).sum() / row_weights.sum()
    return data + config.l1 * np.abs(w).sum() + config.l2 * (w**2).sum()


def test_the_loss_is_the_formula_and_filler_rows_have_no_say():
    config = replace(QUICK, label_smoothing=0.2, l1=0.01, l2=0.02)
    x, y = blobs(10)
    head = Head(D, C)
    step = TrainStep(head, make_optimizer(head, config, learning_rates(config, 1)), config)
    w, b = head.dense.weight.asnumpy().copy(), head.dense.bias.asnumpy().copy()
    kept, row_weights = np.array([3, 7, 1], np.int32), np.array([1, 2, 0.5], np.float32)
    rows, targets = np.append(kept, [0, 0]).astype(np.int32), np.append(y[kept], [-1, -1]).astype(np.int32)
    shares = np.append(row_weights / 3.5, [0, 0]).astype(np.float32)
    loss, correct = step(*map(ms.Tensor, (x, rows, targets, shares)))
    assert float(loss.asnumpy()) == pytest.approx(numpy_loss(w, b, x[kept], y[kept], row_weights, config), rel=1e-5)
    assert int(correct.asnumpy()) == int(((x[kept] @ w.T + b).argmax(1) == y[kept]).sum())


def test_gradients_are_those_of_the_formula():
    """One plain gradient step against finite differences of the NumPy loss."""
    config = replace(QUICK, optimizer="momentum", momentum=0.0, learning_rate=1.0, warmup_epochs=0, l2=0.02, epochs=2)
    x, y = blobs(16)
    head = Head(D, C)
    w, b = head.dense.weight.asnumpy().astype(np.float64), head.dense.bias.asnumpy().astype(np.float64)
    step = TrainStep(head, make_optimizer(head, config, np.array([1.0, 1.0])), config)
    step(*map(ms.Tensor, (x, np.arange(16, dtype=np.int32), y, np.full(16, 1 / 16, np.float32))))
    moved = w - head.dense.weight.asnumpy()
    for place in ((0, 0), (1, 5), (2, 11)):
        nudge = np.zeros_like(w)
        nudge[place] = 1e-5
        up, down = (numpy_loss(w + sign * nudge, b, x, y, np.ones(16), config) for sign in (1, -1))
        assert moved[place] == pytest.approx((up - down) / 2e-5, abs=1e-4)


@pytest.mark.parametrize("steps_a_call", [1, 2, 50])
def test_every_row_is_seen_once_an_epoch_also_in_the_last_batch(monkeypatch, steps_a_call):
    seen = []
    original = TrainSteps.__call__

    def spy(self, x, rows, targets, shares, weights, count):
        taken = slice(int(count.asnumpy()))
        seen.append(rows.asnumpy()[taken][shares.asnumpy()[taken] > 0])
        return original(self, x, rows, targets, shares, weights, count)

    monkeypatch.setattr(TrainSteps, "__call__", spy)
    monkeypatch.setattr(finetune.training.trainer, "STEPS_A_CALL", steps_a_call)
    train(replace(QUICK, epochs=2, batch_size=32), data=blobs(70))
    seen = np.concatenate(seen)
    first, second = seen[:70], seen[70:]
    assert np.array_equal(np.sort(first), np.arange(70)) and np.array_equal(np.sort(second), np.arange(70))
    assert not np.array_equal(first, second)


def test_many_steps_a_call_are_the_single_steps_bit_for_bit():
    config = replace(QUICK, label_smoothing=0.1, l2=0.01)
    x, y = blobs(60)
    x, rng = ms.Tensor(x), np.random.default_rng(0)
    rows, shares = rng.integers(0, 60, (4, 16)).astype(np.int32), rng.uniform(0, 0.1, (4, 16)).astype(np.float32)
    targets, weights = y[rows], rng.uniform(0, 2, 4).astype(np.float32)
    single, many = Head(D, C), Head(D, C)
    step, other = (TrainStep(head, make_optimizer(head, config, learning_rates(config, 7)), config)
                   for head in (single, many))  # fmt: skip
    steps = TrainSteps(other)
    for count in (3, 3, 1):  # each call starts from nothing
        each = [step(x, *map(ms.Tensor, batch)) for batch in zip(rows[:count], targets, shares)]
        loss_sum, correct = steps(x, *map(ms.Tensor, (rows, targets, shares, weights)), ms.Tensor(count, ms.int32))
        assert weights_of(single) == weights_of(many) != weights_of(Head(D, C))
        wanted = sum(float(loss.asnumpy()) * weight for (loss, _), weight in zip(each, weights))
        assert float(loss_sum.asnumpy()) == pytest.approx(wanted, rel=1e-5)
        assert float(correct.asnumpy()) == sum(float(right.asnumpy()) for _, right in each)


def test_the_best_weights_are_kept_not_the_last():
    x, y = blobs(40, noise=1.5)
    valid = blobs(200, seed=3, noise=1.5)
    head, fitted = train(replace(QUICK, epochs=40, learning_rate=0.3), data=(x, y), valid=valid)
    losses = [row.valid_loss for row in fitted.history]
    assert fitted.best_epoch == 1 + int(np.argmin(losses)) < 40
    assert evaluate(Predictor(head), *valid, tuple("abc")).metrics["loss"] == pytest.approx(min(losses), rel=1e-4)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "momentum", "second_optimizer": "adam"}], ids=str)
def test_a_trainer_used_again_is_a_fresh_one_bit_for_bit(changes):
    """Also with fewer rows; and what it learns meanwhile leaves no trace."""
    config = replace(QUICK, epochs=4, **changes)
    (x, y), valid = blobs(100), blobs(60, seed=9)
    rows = np.arange(0, 100, 2)
    fresh = weights_of(train(config, data=(x[rows], y[rows]), valid=valid)[0])
    head = Head(D, C)
    trainer = Trainer(head, (x, y), valid, config, C, 1)
    trainer.fit(on_epoch=lambda line: None)
    learnt = weights_of(head)
    with trainer.weights.kept():
        trainer.fit(rows, on_epoch=lambda line: None)
        assert weights_of(head) == fresh != learnt
    assert weights_of(head) == learnt
    trainer.fit(on_epoch=lambda line: None)
    assert weights_of(head) == learnt
    cells = [trainer.weights, *(cell for phase in trainer.phases for cell in (phase.state, phase.train_steps))]
    assert [len(cell.compile_cache) for cell in cells] == [1] * len(cells)


def test_an_epoch_takes_one_view_of_each_row_and_in_the_end_all_of_them():
    x, y = blobs(90)
    trainer = Trainer(Head(D, C), (np.concatenate([x, -x, 2 * x]), y), (x[:0], y[:0]), QUICK, C, 1)
    taken, steps = [], trainer.phases[0].train_steps

    def note(device_x, rows, targets, shares, weights, count):
        real = targets.asnumpy() >= 0
        taken.append((rows.asnumpy()[real], targets.asnumpy()[real]))
        return steps(device_x, rows, targets, shares, weights, count)

    trainer.phases[0].train_steps = note
    trainer.fit(on_epoch=lambda line: None)
    assert len(taken) == QUICK.epochs
    for places, targets in taken:
        assert sorted(places % 90) == list(range(90)) and np.array_equal(y[places % 90], targets)
    assert len(set(np.concatenate([places for places, _ in taken]))) > 250
    assert trainer.x.shape == (90, D)  # what is calibrated on: the plain view


def test_the_last_epoch_is_kept_where_that_is_asked_for():
    data, valid = blobs(40, noise=1.5), blobs(200, seed=3, noise=1.5)
    config = replace(QUICK, learning_rate=0.3)
    trainer = Trainer(Head(D, C), data, valid, config, C, 1)
    best = trainer.fit(on_epoch=lambda line: None)
    weights = weights_of(trainer.network)
    last = trainer.fit(on_epoch=lambda line: None, keep="last")
    assert best.best_epoch < last.best_epoch == config.epochs and weights_of(trainer.network) != weights
    loss = evaluate(trainer.predictor, *valid, tuple("abc")).metrics["loss"]
    assert loss == pytest.approx(last.history[-1].valid_loss, rel=1e-4)


def test_early_stopping_waits_for_its_patience():
    data, valid = blobs(40, noise=1.5), blobs(200, seed=3, noise=1.5)
    _, fitted = train(replace(QUICK, epochs=40, learning_rate=0.3, patience=3), data=data, valid=valid)
    assert len(fitted.history) == fitted.best_epoch + 3 < 40


def test_without_validation_rows_the_training_loss_decides():
    x, y = blobs(50)
    _, fitted = train(valid=(x[:0], y[:0]))
    assert fitted.best_epoch == 1 + int(np.argmin([row.train_loss for row in fitted.history]))
    assert np.isnan(fitted.history[0].valid_loss)


def test_a_diverging_training_says_what_to_do():
    x, y = blobs(20)
    x[3] = np.inf
    with pytest.raises(InputError, match=r"--set train\.learning_rate=0\.005"):
        train(data=(x, y))


def test_learning_rates_rise_then_fall_to_zero():
    rates = learning_rates(replace(QUICK, epochs=10, learning_rate=0.5, warmup_epochs=2), steps_per_epoch=5)
    assert len(rates) == 50
    assert rates[:10] == pytest.approx(0.05 * np.arange(1, 11))
    assert rates.argmax() in (9, 10) and rates.max() == pytest.approx(0.5)
    assert (np.diff(rates[10:]) < 0).all() and rates[-1] < 0.001
    assert rates[30] == pytest.approx(0.25)  # half way down the cosine


def test_balanced_classes_weigh_the_same():
    labels = np.array([0] * 8 + [1] * 2)
    weights = class_weights(labels, 2, "balanced")
    assert (weights[labels][labels == 0]).sum() == pytest.approx((weights[labels][labels == 1]).sum())
    assert weights[labels].sum() == pytest.approx(10)


def test_the_predictor_keeps_order_over_batches():
    x, _ = blobs(50)
    head = Head(D, C)
    whole, pieces = Predictor(head)(x), Predictor(head, batch_size=7)(x)
    assert whole.shape == (50, C) and np.allclose(whole, pieces, atol=1e-6)
    assert np.allclose(whole.sum(1), 1, atol=1e-5)


def test_the_log_line_is_the_known_one():
    _, fitted = train(replace(QUICK, epochs=1))
    line = log_line(fitted.history[0], epochs=1, steps=7)
    numbers = r"cost: \d+ ms, per step time: [\d.]+ ms, avg loss: [\d.]+, acc: [\d.]+, train acc: [\d.]+"
    assert re.fullmatch(r"epoch\[1/1\], iter\[7\] " + numbers, line)


@pytest.mark.parametrize(
    "name, value, better", [("learning_rate", 1e6, "100000"), ("l2", 1e30, "1e\\+29"), ("l1", 50.0, "5")]
)
def test_the_setting_that_is_extreme_is_the_one_to_lower(name, value, better):
    x, y = blobs(20)
    x[3] = np.inf
    with pytest.raises(InputError, match=rf"Lower train\.{name} .*--set train\.{name}={better}\."):
        train(replace(QUICK, **{name: value}), data=(x, y))
