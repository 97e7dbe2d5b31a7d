"""Train the embedded backbone: a small MobileNetV2 learns what a big one says of unlabelled photographs.

    python -m pretrained.distillation --pool FOLDER_OF_TARS --teacher TEACHER.ckpt --out STUDENT.ckpt
    python -m pretrained.distillation ... --resume        # goes on where a stopped run was

A frozen teacher and a student (random at the start) look at the same random crops. Through one linear map the
student predicts the teacher's softened class probabilities and the principal components of its pooled features.
The map is thrown away; only the student's backbone is written, under the network's own names. No label is used.

Measured on 2 CPU cores: 400 to 450 pictures a second at 96 pixels, 230 to 250 at 128. What came of it, by 5-fold
cross-validation of a linear classifier on 1,400 photographs of cats and dogs that are not in the pool; the first four
rows were made by the version of this recipe in revision d09c5a9, with views of 64 and 96 pixels:

    steps     8,000 at 64 pixels                                     80.4 %
             16,500 at 64 pixels                                     82.7 %
             20,500, the last 3,300 at 96 pixels                     85.8 %
             32,000, the last 11,500 with mixtures too               87.2 %  (85.8 as the last row was measured)
             52,000, 13,000 of them at 96 and 7,000 at 128 pixels    91.1 %  (the embedded file; 90.5 % of 200 others)

The last 20,000 steps had new views (another seed) of the pool, and of 1,200 drawn pictures beside it:

    python -m datasets draw drawn --per_class 600 --seed 1 && tar cf POOL/drawn.tar -C drawn train eval
    python -m pretrained.distillation --pool POOL --teacher TEACHER.ckpt --out STUDENT.ckpt \
        --steps 20000 --seed 1 --start_from FIRST.ckpt

Not kept: from the 32,000 steps on, 12,500 more, half of the views ending at a line beyond which another one goes on
(CutMix, the teacher's features added by area): 87.4 % where that file has 87.0 (three repeats of the folds).

Of that file: features mapped onto the teacher's by ridge regression gave a classifier nothing (85.6 %, 85.8 without).

Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; Romero et al., "FitNets", 2015;
Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", 2022 (same crop for both);
Sandler et al., "MobileNetV2", 2018; small pictures first: Howard, "Training Imagenet in 3 hours", 2018.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pretrained.distillation", description=__doc__.split("\n\n")[0])
    parser.add_argument("--pool", type=Path, required=True, help="folder of .tar files of pictures, no labels")
    parser.add_argument("--teacher", type=Path, required=True, help="CKPT of MobileNetV2 1.0 with its head")
    parser.add_argument("--out", type=Path, required=True, help="where the student's CKPT goes")
    parser.add_argument("--cache_dir", type=Path, default=Path("cache/distill"), help="views and teacher's answers")
    parser.add_argument("--steps", type=int, default=34_000, help="batches (34000)")
    parser.add_argument("--views", type=int, default=8, help="different random crops of a picture (8)")
    parser.add_argument("--mixed", type=int, default=8, help="mixtures of a picture with others (8)")
    parser.add_argument("--start_from", type=Path, help="CKPT of a student to go on from; default: random weights")
    parser.add_argument("--favour", default="cats_dogs_unlabelled", help="tar that makes up half of every batch")
    parser.add_argument("--width", type=float, default=0.35, help="width of the student (0.35)")
    parser.add_argument("--batch_size", type=int, default=64, help="a multiple of 16 (64)")
    parser.add_argument("--lr", type=float, default=0.002, help="highest learning rate of Adam (0.002)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the last saved step of a stopped run")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # On AVX-512 machines oneDNN 3.10 sends MindSpore's convolutions to a reference kernel, ten times slower.
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    # Without these, threads that wait keep a core busy: 335 instead of 1,000 pictures a second at 64 pixels.
    os.environ.setdefault("MS_DEV_HOST_BLOCKING_RUN", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from datasets.base import InputError
    from pretrained.distillation.training import train
    from pretrained.distillation.views import chances, prepare, read_pool

    try:
        pictures, tars = read_pool(args.pool)
        chance = chances(tars, args.favour)
        views, features = prepare(pictures, chance, args)
        train(views, features, chance, args)
        return 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; go on with --resume.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
