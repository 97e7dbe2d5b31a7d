"""Weight files as five other frameworks wrote them, and files that mean harm."""

import io
import json
import pickle
import subprocess
import sys
import zipfile

import h5py
import mindspore as ms
import numpy as np
import openvino
import pytest
from conftest import CHECKOUT, SHARED, needs_real_data
from safetensors.numpy import save_file

from datasets.base import InputError
from finetune.features.engines.openvino import onnx_of
from pretrained.formats import ckpt, pytorch
from pretrained.formats.read import read_weights
from pretrained.mobilenet_v2 import MobileNetV2
from pretrained.names import SCHEMES
from pretrained.recognise import recognise
from pretrained.weights import load_backbone

FOREIGN = SHARED / "pretrained" / "foreign"
FILES = {
    "torchvision/state_dict.pth": 1e-4,
    "torchvision/state_dict_legacy.pth": 1e-4,
    "torchvision/checkpoint_of_a_training.pth": 1e-4,
    "torchvision/half.safetensors": 1e-2,  # float16
    "timm/model.safetensors": 1e-4,
    "huggingface": 1e-4,  # a folder
    "huggingface_symmetric": 1e-4,
    "keras/whole_model.h5": 1e-4,
    "keras/whole_model.keras": 1e-4,
    "keras/model.weights.h5": 1e-4,
    "keras/transfer_learning_model.keras": 1e-4,
    "keras_real/dog_breeds_1.0_160.h5": 1e-4,
    "mindcv/mobilenet_v2_035.ckpt": 1e-4,
}


def distance(found, wanted):
    """The largest distance of two rows, in lengths of the wanted one."""
    return (np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)).max()


@needs_real_data
@pytest.mark.parametrize("name", FILES)
def test_features_are_those_of_the_framework_that_wrote_the_file(name):
    path = FOREIGN / name
    folder = path if path.is_dir() else path.parent
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    expected = np.load(folder / "expected.npz")
    backbone = load_backbone(path)
    record = backbone.record
    assert record.width == facts["width"] and record.bn_eps == facts["bn_eps"]
    assert record.pad_mode == ("pad" if facts["padding"].startswith("symmetric") else "same")
    assert np.allclose(record.image.mean_unit, facts["mean"]) and np.allclose(record.image.std_unit, facts["std"])
    features = compiled(backbone, expected["input"].shape[1:])
    assert distance(features(expected["input"]), expected["features"]) <= FILES[name]
    one = features(expected["input"][:1])
    assert distance(one, expected["features"][:1]) <= FILES[name]


def compiled(backbone, shape):
    """The network that the engine runs, for float32 (B, 3, H, W): OpenVINO compiles it in a moment."""
    core = openvino.Core()
    model = core.read_model(onnx_of(backbone))
    model.reshape([-1, *shape])
    network = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: network([images])[0]


@needs_real_data
@pytest.mark.parametrize("name", ["torchvision/state_dict.pth", "keras_real/dog_breeds_1.0_160.h5"])
def test_mindspore_computes_them_too(name):
    expected = np.load((FOREIGN / name).parent / "expected.npz")
    found = load_backbone(FOREIGN / name).network(ms.Tensor(expected["input"])).asnumpy()
    assert distance(found, expected["features"]) <= 1e-4


def toy_arrays(seed=0):
    """A whole MobileNetV2 of width 0.1, by our names."""
    network = MobileNetV2(0.1)
    rng = np.random.default_rng(seed)
    shapes = {p.name: tuple(p.shape) for p in network.get_parameters()}
    return {name: rng.normal(1, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def by_names_of(scheme, arrays):
    """The same by the names and in the layout of another scheme."""
    found = {}
    for theirs, ours in scheme.table().items():
        array = arrays[ours]
        if scheme.tensorflow and array.ndim == 4:
            array = array.transpose((2, 3, 0, 1) if "depthwise" in theirs else (2, 3, 1, 0))
        found[theirs] = array
    return found


ARRAYS = toy_arrays()
TABLES = {scheme.name: scheme for scheme in SCHEMES}


def as_ckpt(path):
    with path.open("wb") as file:
        ckpt.write(file, ARRAYS)


def as_safetensors(path):
    save_file(by_names_of(TABLES["timm"], ARRAYS), str(path))


def as_h5(path):
    with h5py.File(path, "w") as file:
        for name, array in by_names_of(TABLES["keras"], ARRAYS).items():
            file[f"model_weights/{name.partition('/')[0]}/{name}:0"] = array


def as_keras(path):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        numbers = {"kernel": 0, "gamma": 0, "beta": 1, "moving_mean": 2, "moving_variance": 3}
        for name, array in by_names_of(TABLES["keras"], ARRAYS).items():
            layer, _, variable = name.partition("/")
            group = file.require_group(f"layers/kind_{layer}/vars")
            group.attrs["name"] = layer
            group[str(numbers[variable])] = array
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": {"name": "toy"}}))
        archive.writestr("model.weights.h5", content.getvalue())


def pickled(found, storages):
    """A pickle as PyTorch writes it, from {name: array}; numbers of the arrays go into `storages`."""

    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            if not isinstance(value, tuple) or value[:1] != ("storage",):
                return None
            return ("storage", Global("torch", "FloatStorage"), value[1], "cpu", value[2])

        def save_global(self, value, name=None):
            self.write(pickle.GLOBAL + value.module.encode() + b"\n" + value.name.encode() + b"\n")

    Pickler.dispatch = dict(pickle._Pickler.dispatch)

    class Global:
        def __init__(self, module, name):
            self.module, self.name = module, name

    Pickler.dispatch[Global] = Pickler.save_global

    class Rebuilt:
        def __init__(self, array):
            self.array = array

    def save_rebuilt(pickler, value):
        key = str(len(storages))
        storages[key] = np.ascontiguousarray(value.array).tobytes()
        pickler.save(Global("torch._utils", "_rebuild_tensor_v2"))
        strides = tuple(step // value.array.itemsize for step in value.array.strides)
        pickler.save((("storage", key, value.array.size), 0, value.array.shape, strides, False, {}))
        pickler.write(pickle.REDUCE)

    Pickler.dispatch[Rebuilt] = save_rebuilt
    content = io.BytesIO()
    Pickler(content, 2).dump({name: Rebuilt(array) for name, array in found.items()})
    return content.getvalue()


def as_pth(path):
    storages = {}
    head = pickled(by_names_of(TABLES["torchvision"], ARRAYS), storages)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/data.pkl", head)
        for key, content in storages.items():
            archive.writestr(f"toy/data/{key}", content)


def as_legacy_pth(path):
    storages = {}
    head = pickled(by_names_of(TABLES["openmmlab"], ARRAYS), storages)
    parts = [pickle.dumps(part, 2) for part in (pytorch.MAGIC, 1001, {"little_endian": True})]
    counted = [(len(content) // 4).to_bytes(8, "little") + content for content in storages.values()]
    path.write_bytes(b"".join([*parts, head, pickle.dumps(list(storages), 2), *counted]))


def as_tfjs(path):
    found = by_names_of(TABLES["keras"], ARRAYS)
    weights = [{"name": name, "shape": list(array.shape), "dtype": "float32"} for name, array in found.items()]
    path.write_text(json.dumps({"weightsManifest": [{"paths": ["shard.bin"], "weights": weights}]}), encoding="utf-8")
    (path.parent / "shard.bin").write_bytes(b"".join(array.tobytes() for array in found.values()))


WRITERS = {
    "toy.ckpt": as_ckpt,
    "toy.safetensors": as_safetensors,
    "toy.h5": as_h5,
    "toy.keras": as_keras,
    "toy.pth": as_pth,
    "legacy.pth": as_legacy_pth,
    "model.json": as_tfjs,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_arrays_back(tmp_path, name):
    WRITERS[name](tmp_path / name)
    path = (tmp_path / name).rename(tmp_path / "without suffix")
    found = recognise(path, read_weights(path).arrays)
    assert found.width == 0.1 and found.arrays.keys() == ARRAYS.keys()
    assert all(np.array_equal(found.arrays[own], array) for own, array in ARRAYS.items())


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_damaged_is_refused_in_words(tmp_path, name):
    """60 files that were cut, or in which a byte, a piece or its end is another one."""
    path = tmp_path / name
    WRITERS[name](path)
    content = path.read_bytes()
    refused = 0
    for number in range(60):
        rng = np.random.default_rng([7, number])
        at, other = sorted(int(n) for n in rng.integers(0, min(len(content), [len(content), 4000][number % 2]), 2))
        spoilt = [content[:at], content[:at] + rng.bytes(1) + content[at + 1 :], content[:at] + content[other:]]
        path.write_bytes(spoilt[number % 3])
        try:
            recognise(path, read_weights(path).arrays)
        except InputError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused >= 20  # at least all that were cut short


def pth_that_runs(path, proof):
    class Runs:
        def __reduce__(self):
            return (open, (str(proof), "w"))

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/data.pkl", pickle.dumps({"weight": Runs()}, 2))


def test_a_pickle_that_would_run_something_is_refused_before_it_does(tmp_path):
    path, proof = tmp_path / "toy.pth", tmp_path / "proof"
    pth_that_runs(path, proof)
    with pytest.raises(InputError, match=r"it would run _?io\.open.*torch\.save\(model\.state_dict\(\)"):
        read_weights(path)
    assert not proof.exists()


@needs_real_data
def test_a_whole_model_object_is_refused_with_the_way_to_save_it():
    with pytest.raises(InputError, match=r"torchvision\.models\.mobilenetv2\.MobileNetV2.*state_dict"):
        read_weights(FOREIGN / "torchvision" / "whole_model_object.pth")


def test_another_pickle_is_called_what_it_is(tmp_path):
    path = tmp_path / "MobileNetV2_pretrained.pdparams"
    path.write_bytes(pickle.dumps({"conv1.weight": [1.0]}, protocol=2))
    with pytest.raises(InputError, match=r"PaddleClas' MobileNetV2 is another network"):
        read_weights(path)


CLAIMS_8_GB = """
import sys
from pathlib import Path
from datasets.base import InputError
from pretrained.formats.read import read_weights
try:
    read_weights(Path(sys.argv[1]))
except InputError as error:
    print(error)
status = Path("/proc/self/status").read_text()  # ru_maxrss has the peak of who started this, too
print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""


def claims_in_safetensors(path):
    head = json.dumps({"a": {"dtype": "F32", "shape": [2**31], "data_offsets": [0, 2**33]}}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(1000))


def claims_in_ckpt(path):
    dims = b"\x08" + ckpt.to_varint(2**31)
    tensor = dims + ckpt.field(2, b"Float32") + b"\x1a" + ckpt.to_varint(2**33)
    path.write_bytes(ckpt.field(1, ckpt.field(1, b"a") + ckpt.field(2, tensor)) + bytes(1000))


def claims_in_h5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("model_weights/Conv1/Conv1/kernel", (2**31,), "f4", compression="gzip", chunks=(2**20,))


def claims_in_legacy(path):
    head = pickled({"a": np.zeros(4, np.float32)}, {})
    parts = [pickle.dumps(part, 2) for part in (pytorch.MAGIC, 1001, {})]
    path.write_bytes(b"".join([*parts, head, pickle.dumps(["0"], 2), (2**31).to_bytes(8, "little"), bytes(16)]))


def a_zip_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("toy/data.pkl", pickled({"a": np.zeros(4, np.float32)}, {}))
        with archive.open("toy/data/0", "w") as file:
            for _ in range(600):
                file.write(bytes(1 << 20))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read in /proc")
@pytest.mark.parametrize(
    "make",
    [claims_in_safetensors, claims_in_ckpt, claims_in_h5, claims_in_legacy, a_zip_bomb],
    ids=lambda f: f.__name__,
)
def test_claims_cost_no_memory(tmp_path, make):
    path = tmp_path / "toy"
    make(path)
    done = subprocess.run([sys.executable, "-c", CLAIMS_8_GB, str(path)], cwd=CHECKOUT, capture_output=True, text=True)
    said, peak = done.stdout.strip().rsplit("\n", 1)
    assert "not readable as weights" in said and int(peak) < 1000, done.stderr


def test_links_out_of_a_file_are_not_followed(tmp_path):
    secret = tmp_path / "secret.h5"
    as_h5(secret)
    path = tmp_path / "toy.h5"
    with h5py.File(path, "w") as file:
        file["model_weights"] = h5py.ExternalLink(str(secret), "model_weights")
    with pytest.raises(InputError, match="not readable as weights"):
        read_weights(path)
    as_tfjs(tmp_path / "model.json")
    model = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    model["weightsManifest"][0]["paths"] = ["../shard.bin"]
    (tmp_path / "model.json").write_text(json.dumps(model), encoding="utf-8")
    with pytest.raises(InputError, match="lies in another folder"):
        read_weights(tmp_path / "model.json")


RESNETS = {
    "torchvision": ("layer{n}.0.conv1.weight", "layer{n}.0.bn1.running_mean"),
    "keras": ("conv{n}_block1_1_conv/kernel", "conv{n}_block1_1_bn/gamma"),
    "mindspore": ("layer{n}.0.conv1.weight", "layer{n}.0.bn1d.moving_mean"),
}


@pytest.mark.parametrize("framework", RESNETS)
def test_a_resnet_is_called_one(framework, tmp_path):
    arrays = {name.format(n=n): np.ones((4, 4), np.float32) for n in (1, 2, 3, 4, 5) for name in RESNETS[framework]}
    with pytest.raises(InputError, match="not the weights of a MobileNetV2 but of a ResNet"):
        recognise(tmp_path / "a", arrays)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("prefix", ["", "module.", "network.backbone."])
def test_prefixes_heads_and_states_are_no_part_of_the_backbone(scheme, prefix, tmp_path):
    between = "/" if scheme.tensorflow else "."
    prefix = prefix.replace(".", between)
    arrays = {prefix + name: array for name, array in by_names_of(scheme, ARRAYS).items()}
    trained = {f"moments{between}{name}": np.zeros_like(array) for name, array in arrays.items() if "mean" not in name}
    head = {f"{prefix}{scheme.classifiers[0]}{between}bias": np.zeros(3, np.float32)}
    scalars = {"learning_rate": np.float64(0.1), "current_iterator_step": np.int32(7), "scale_sense": np.ones(1)}
    found = recognise(tmp_path / "a", {**trained, **arrays, **head, **scalars})
    assert found.prefix == prefix and found.scheme is scheme and found.arrays.keys() == ARRAYS.keys()
    assert found.left_out == {"a training's state": len(trained) + 3, "the classifier": 1}


def test_averaged_weights_are_preferred(tmp_path):
    plain = by_names_of(TABLES["timm"], ARRAYS)
    averaged = by_names_of(TABLES["timm"], toy_arrays(1))
    both = {f"state_dict.{name}": array for name, array in plain.items()}
    both |= {f"state_dict_ema.{name}": array for name, array in averaged.items()}
    found = recognise(tmp_path / "a", both)
    assert found.prefix == "state_dict_ema." and np.array_equal(
        found.arrays["features.0.features.0.weight"], averaged["conv_stem.weight"]
    )


def test_deeper_networks_of_timm_are_called_so(tmp_path):
    path = tmp_path / "deep.safetensors"
    arrays = by_names_of(TABLES["timm"], ARRAYS)
    save_file({**arrays, "blocks.1.2.conv_pw.weight": arrays["blocks.1.1.conv_pw.weight"]}, str(path))
    with pytest.raises(InputError, match=r"deeper than MobileNetV2, as timm's mobilenetv2_110d"):
        load_backbone(path)


def test_channels_of_no_width(tmp_path):
    path = tmp_path / "pruned.ckpt"
    spoilt = {**ARRAYS, "features.18.features.0.weight": ARRAYS["features.18.features.0.weight"][:1000]}
    with path.open("wb") as file:
        ckpt.write(file, spoilt)
    with pytest.raises(InputError, match="of no width of MobileNetV2"):
        load_backbone(path)


def test_what_mindspore_puts_beside_the_numbers_does_no_harm(tmp_path):
    path = tmp_path / "toy.ckpt"
    halves = {name: ms.Tensor(array.astype(np.float16)) for name, array in ARRAYS.items()}
    parameters = [{"name": f"network.{name}", "data": value} for name, value in halves.items()]
    ms.save_checkpoint(parameters, str(path), append_dict={"epoch_num": 3, "note": "猫", "lr": 0.1, "done": True})
    arrays = recognise(path, read_weights(path).arrays).arrays
    assert all(np.array_equal(arrays[name], array.astype(np.float16)) for name, array in ARRAYS.items())


def test_a_ckpt_of_ours_is_one_for_mindspore(tmp_path):
    as_ckpt(tmp_path / "toy.ckpt")
    found = ms.load_checkpoint(str(tmp_path / "toy.ckpt"))
    assert all(np.array_equal(found[name].asnumpy(), array) for name, array in ARRAYS.items())
