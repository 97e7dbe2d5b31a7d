"""The weight files that are known: those that others publish, and the one that comes with the project.

None of the published ones was downloaded here: the addresses are not reachable from where this was written, so that
sizes and sums stand only where their publishers state them. Accuracy is what the publisher states for the whole network
on ImageNet.
"""

from __future__ import annotations

from pathlib import Path

from datasets.image import ImageSpec
from pretrained.record import WeightsRecord

IMAGENET_MEAN_UNIT = (0.485, 0.456, 0.406)
IMAGENET_STD_UNIT = (0.229, 0.224, 0.225)
APACHE, NOT_STATED = "Apache-2.0", "not stated"


def imagenet(resize: int | tuple[int, int], interpolation: str = "bilinear") -> ImageSpec:
    """224 x 224 with ImageNet's mean and standard deviation, as most were trained."""
    return ImageSpec((224, 224), resize, IMAGENET_MEAN_UNIT, IMAGENET_STD_UNIT, interpolation=interpolation)


def tensorflow(side: int, resize: int | tuple[int, int]) -> ImageSpec:
    """Pixels from -1 to 1."""
    return ImageSpec((side, side), resize, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def symmetric(name: str, width: float, image: ImageSpec, url: str, source: str, licence: str, **more) -> WeightsRecord:
    """Padded as PyTorch and the zoo do, with their eps."""
    return WeightsRecord(name, width, "pad", 1e-5, image, source, licence, url, **more)


# "MobileNetV2 on CPU and GPU"
ZOO = symmetric(
    "mobilenetv2_cpu_gpu",
    1.0,
    imagenet((256, 256)),
    "https://download.mindspore.cn/model_zoo/official/lite/mobilenetv2_openimage_lite/mobilenetv2_cpu_gpu.ckpt",
    "MindSpore model zoo, trained on OpenImage",
    APACHE,
)
ZOO_ASCEND = symmetric(
    "mobilenetv2_ascend",
    1.0,
    imagenet((256, 256)),
    "https://download.mindspore.cn/model_zoo/official/lite/mobilenetv2_openimage_lite/1.1/mobilenetv2_ascend.ckpt",
    "MindSpore model zoo, trained on OpenImage",
    APACHE,
    sha256="808636dd9da7a34ad70296fb4be023ee024d27bbba51b637b80ea2a979e5e12c",
)
VISION = symmetric(
    "mindspore_vision_mobilenet_v2_1.0_224",
    1.0,
    imagenet(256),
    "https://download.mindspore.cn/vision/classification/mobilenet_v2_1.0_224.ckpt",
    "MindSpore Vision, trained on ImageNet",
    APACHE,
)
OPENMMLAB = symmetric(
    "openmmlab_mobilenet_v2",
    1.0,
    imagenet(256),
    "https://download.openmmlab.com/mmclassification/v0/mobilenet_v2/"
    "mobilenet_v2_batch256_imagenet_20200708-3b2dc3af.pth",
    "OpenMMLab's MMPretrain, trained on ImageNet",
    APACHE,
    sha256="3b2dc3af",
    top_1=71.86,
)


def timm(name: str, width: float, repository: str, top_1: float, **more) -> WeightsRecord:
    path = f"timm/{repository}/resolve/main/model.safetensors"
    return symmetric(
        name,
        width,
        imagenet(256, "bicubic"),
        f"https://huggingface.co/{path}",
        f"timm's {repository}, trained on ImageNet",
        APACHE,
        mirrors=(f"https://hf-mirror.com/{path}",),
        top_1=top_1,
        **more,
    )


def torchvision(version: str, resize: int, file: str, top_1: float) -> WeightsRecord:
    return symmetric(
        f"torchvision_mobilenet_v2_{version}",
        1.0,
        imagenet(resize),
        f"https://download.pytorch.org/models/{file}",
        f"torchvision's IMAGENET1K_{version.upper()}",
        NOT_STATED,
        sha256=file.removesuffix(".pth").rpartition("-")[2],
        top_1=top_1,
    )


def mindcv(width: float, file: str, top_1: float) -> WeightsRecord:
    return symmetric(
        f"mindcv_mobilenet_v2_{round(width * 100):03}",
        width,
        imagenet(256),
        f"https://download.mindspore.cn/toolkits/mindcv/mobilenet/mobilenetv2/{file}",
        "MindCV, trained on ImageNet",
        APACHE,
        top_1=top_1,
    )


def keras(width: float, side: int) -> WeightsRecord:
    """Without its classifier."""
    file = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{width}_{side}_no_top.h5"
    resize = round(side / 0.875)
    return WeightsRecord(
        f"keras_mobilenet_v2_{width}_{side}",
        width,
        "same",
        1e-3,
        tensorflow(side, (resize, resize)),
        "Keras Applications, trained on ImageNet by TensorFlow's authors",
        APACHE,
        f"https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/{file}",
        bytes=9_406_464 if (width, side) == (1.0, 224) else 0,
        top_1=KERAS_TOP_1.get((width, side)),
    )


KERAS_TOP_1 = {  # of (width, side), where TensorFlow's model page states it
    (1.4, 224): 75.0,
    (1.3, 224): 74.4,
    (1.0, 224): 71.8,
    (1.0, 192): 70.7,
    (1.0, 160): 68.8,
    (1.0, 128): 65.3,
    (1.0, 96): 60.3,
    (0.75, 224): 69.8,
    (0.5, 224): 65.4,
    (0.35, 224): 60.3,
    (0.35, 128): 50.8,
}
KERAS_FILES = (
    *((width, 224) for width in (1.4, 1.3)),
    *((width, side) for width in (1.0, 0.75, 0.5, 0.35) for side in (224, 192, 160, 128, 96)),
)
TIMM_100_SHA256 = "55ea4fb3a96010b933710ebf44fc965b070d5cd054d3f35e44f2d1320b4a714e"

PUBLISHED = (
    timm("timm_mobilenetv2_140", 1.4, "mobilenetv2_140.ra_in1k", 76.51),
    timm("timm_mobilenetv2_100", 1.0, "mobilenetv2_100.ra_in1k", 72.95, sha256=TIMM_100_SHA256),
    timm("timm_mobilenetv2_050", 0.5, "mobilenetv2_050.lamb_in1k", 65.9),
    torchvision("v2", 232, "mobilenet_v2-7ebf99e0.pth", 72.154),
    torchvision("v1", 256, "mobilenet_v2-b0353104.pth", 71.878),
    mindcv(1.4, "mobilenet_v2_140-98776171.ckpt", 75.56),
    mindcv(1.0, "mobilenet_v2_100-d5532038.ckpt", 72.27),
    mindcv(0.75, "mobilenet_v2_075-bd7bd4c4.ckpt", 69.98),
    *(keras(*file) for file in KERAS_FILES),
    OPENMMLAB,
    VISION,
    ZOO,
    ZOO_ASCEND,
)

TENSORFLOW_1_0_224 = WeightsRecord(
    name="mobilenet_v2_1.0_224_imagenet",
    width=1.0,
    pad_mode="same",
    bn_eps=1e-5,  # BatchNorm is folded into gamma 1, beta = bias, so that this eps gives exactly 1
    image=ImageSpec(size=(224, 224), resize=(256, 256), mean_unit=(0.5, 0.5, 0.5), std_unit=(0.5, 0.5, 0.5)),
    source="TensorFlow's mobilenet_v2_1.0_224, trained on ImageNet, dequantised from its int8 file",
    licence="Apache-2.0",
    sha256="c8412b61ef3c43219a341a7dbaf7f1175876d3460c36c552d7186c05591dd2df",
)

# The backbone that comes with the project, so that the first command needs no download. Made by
#
#   python -m pretrained.distillation --pool POOL --teacher MOBILENET_1.0.ckpt --out FIRST.ckpt --mixed 0 --steps 22000
#   python -m pretrained.distillation ... --mixed 8 --steps 34000 --resume
#   python -m datasets draw drawn --per_class 600 --seed 1 && tar cf POOL/drawn.tar -C drawn train eval
#   python -m pretrained.distillation --pool POOL --teacher MOBILENET_1.0.ckpt --out STUDENT.ckpt --steps 20000 \
#       --seed 1 --start_from FIRST.ckpt
#
# The first was stopped after 20,500 steps and the second after 32,000, both by revision d09c5a9: 90 minutes on 2 CPU
# cores. The last took 75 minutes, which other work shared. Frozen, with a linear head: 90.5 % of 200 photographs of
# cats and dogs (85.6 to 93.8), 99.0 % of 100 drawn ones of another seed (94.6 to 99.8).
EMBEDDED = WeightsRecord(
    name="mobilenet_v2_0.35_128_distilled",
    width=0.35,
    pad_mode="pad",
    bn_eps=1e-5,
    image=ImageSpec(size=(128, 128), resize=(146, 146), mean_unit=(0.5, 0.5, 0.5), std_unit=(0.5, 0.5, 0.5)),
    source="this project, distilled from TensorFlow's mobilenet_v2_1.0_224 on 10,199 unlabelled photographs of "
    "Caltech-101, Tiny ImageNet, an ImageNet sample, and cats and dogs, and on 1,200 pictures of the drawn sample set",
    licence="Apache-2.0; all photographs but those of Caltech-101 (CC BY 4.0) are for research use",
    sha256="5b5575deb003c570655e4c8878e0b79f3713a23951c70bea3a933b99b9db8dd1",
)
EMBEDDED_FILE = Path(__file__).with_name(f"{EMBEDDED.name}.ckpt")

CATALOG = (EMBEDDED, TENSORFLOW_1_0_224, *PUBLISHED)


def find_by_sha256(sha256: str) -> WeightsRecord | None:
    """Of some files only the beginning is published."""
    return next((record for record in CATALOG if record.sha256 and sha256.startswith(record.sha256)), None)


def find_by_name(name: str) -> WeightsRecord | None:
    return next((record for record in CATALOG if record.name == name), None)
