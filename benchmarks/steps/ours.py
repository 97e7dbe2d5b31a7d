"""Our contestant: steps of `finetune.training.trainer.Trainer` on the rows in front of a cut."""

from __future__ import annotations

from finetune.device import init_device

if __name__ == "__main__":
    from benchmarks.steps.turns import arguments, head_weights, rows_of, take_turns

    given = arguments()
    init_device("CPU", threads=given.threads)

    from functools import partial

    import mindspore as ms
    import numpy as np

    from finetune.config import TailConfig, TrainConfig
    from finetune.training.epoch import train_rows
    from finetune.training.networks import Head
    from finetune.training.tail import tail_of, tail_optimizer, tail_training
    from finetune.training.trainer import Trainer
    from pretrained.weights import load_backbone

    x, y = rows_of(given)
    backbone = load_backbone(given.pretrain_ckpt)
    head = Head(backbone.feature_size, int(y.max()) + 1)
    head.dense.weight.set_data(ms.Tensor(head_weights(y, backbone.feature_size)))
    settings = TailConfig(epochs=1000, batch_size=given.batch_size, warmup=0.0)  # so many that the rate hardly falls
    trainer = Trainer(
        tail_of(backbone, given.cut, x.shape, head),
        *((x, y), (x[:0], y[:0]), tail_training(TrainConfig(tail=settings)), int(y.max()) + 1, 1),
        partial(tail_optimizer, tail=settings),
    )
    (phase,) = trainer.phases
    phase.begin(trainer.steps(len(x)))
    trainer.network.set_train(True)

    def steps(places: np.ndarray) -> float:
        drawn = places, y[places], np.ones(len(places), np.float32)
        how = trainer.batch_size, trainer.steps_a_call
        loss, rows, _ = train_rows(phase.train_steps, trainer.device_x, *drawn, *how)
        return loss / rows

    take_turns(steps, given, len(x))
