"""What is given for weights, the catalog, and the command line."""

import hashlib
import http.server
import json
import threading

import pytest
import yaml
from conftest import TOY_RECORD, save_toy_backbone

from datasets.base import InputError, MachineFault
from datasets.image import ImageSpec
from pretrained import files
from pretrained.__main__ import main
from pretrained.catalog import CATALOG, find_by_name, find_by_sha256
from pretrained.facts import find_facts
from pretrained.files import facts_file, fetch_weights, find_weights
from pretrained.formats.read import read_weights
from pretrained.recognise import recognise
from pretrained.record import WeightsRecord
from pretrained.shapes import channels_of, width_of


def test_every_record_of_the_catalog_is_whole():
    names = [record.name for record in CATALOG]
    assert len(names) == len(set(names)) >= 34
    for record in CATALOG:
        assert WeightsRecord.from_dict(yaml.safe_load(yaml.safe_dump(record.to_dict()))) == record
        assert width_of(channels_of(record.width)) == record.width
        assert record.url is None or record.url.startswith("https://")
        assert record.sha256 is None or len(record.sha256) in (8, 64)
        assert record.licence and record.source


def test_a_folder_stands_for_its_only_weight_file(tmp_path):
    path = save_toy_backbone(tmp_path / "toy.ckpt")
    assert find_weights(tmp_path) == path
    (tmp_path / "other.safetensors").touch()
    with pytest.raises(InputError, match=r"2 weight files \(other\.safetensors, toy\.ckpt\)"):
        find_weights(tmp_path)
    of_a_run = save_toy_backbone(tmp_path / "runs" / "one" / "ckpt" / "best.ckpt")
    assert find_weights(tmp_path / "runs" / "one") == of_a_run
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no weight file in this folder"):
        find_weights(tmp_path / "empty")


@pytest.fixture
def published(tmp_path):
    """A record whose file a server of this machine has."""
    content = save_toy_backbone(tmp_path / "published" / "toy.ckpt").read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    facts = TOY_RECORD.to_dict() | {
        "name": "toy_weights",
        "url": f"http://127.0.0.1:{server.server_port}/toy.ckpt",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    yield WeightsRecord.from_dict(facts)
    server.shutdown()
    server.server_close()


def test_a_name_of_the_catalog_is_fetched_once_and_keeps_its_facts(published, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FOLDER", tmp_path / "weights")
    monkeypatch.setattr(files, "find_by_name", {"toy_weights": published}.get)
    path = find_weights("toy_weights")
    assert path == tmp_path / "weights" / "toy_weights" / "toy.ckpt"
    file = read_weights(path)
    facts = find_facts(path, file, recognise(path, file.arrays))
    assert facts.record == published and set(facts.origins.values()) == {"toy.ckpt.yaml"}
    before = path.stat().st_mtime_ns
    assert find_weights("toy_weights") == path and path.stat().st_mtime_ns == before


def test_without_a_network_the_file_to_get_by_hand_is_named(published, tmp_path):
    away = WeightsRecord.from_dict(published.to_dict() | {"url": "http://127.0.0.1:9/toy.ckpt"})
    with pytest.raises(MachineFault, match=r"127\.0\.0\.1:9/toy\.ckpt") as caught:
        fetch_weights(away, tmp_path / "weights")
    assert str(tmp_path / "weights" / "toy_weights") in str(caught.value)


def test_what_is_not_published_says_so():
    with pytest.raises(InputError, match=r"not published\. Give its path"):
        fetch_weights(find_by_name("mobilenet_v2_1.0_224_imagenet"))


def facts_beside(folder, name, **config):
    """Of a toy file by timm's or Hugging Face's names with such a JSON file beside it."""
    from test_pretrained_formats import ARRAYS, TABLES, by_names_of

    (folder / name).write_text(json.dumps(config), encoding="utf-8")
    scheme = "timm" if "pretrained_cfg" in config else "huggingface"
    path = folder / "model.safetensors"
    from pretrained.formats.base import WeightFile

    file = WeightFile("safetensors", by_names_of(TABLES[scheme], ARRAYS))
    path.write_bytes(b"stands for it")
    return find_facts(path, file, recognise(path, file.arrays))


def test_facts_of_timms_config(tmp_path):
    config = {"input_size": [3, 192, 192], "crop_pct": 0.96, "interpolation": "bilinear", "mean": [0.5] * 3}
    facts = facts_beside(tmp_path, "config.json", pretrained_cfg=config)
    assert facts.record.image == ImageSpec((192, 192), 200, (0.5, 0.5, 0.5), (0.229, 0.224, 0.225))
    assert facts.origins["size"] == "config.json" and facts.origins["std_unit"] == "scheme timm"
    assert facts.origins["width"] == "shapes"


def test_facts_of_hugging_faces_configs(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"size": {"shortest_edge": 140}, "crop_size": {"height": 96, "width": 128}, "resample": 3}),
        encoding="utf-8",
    )
    facts = facts_beside(tmp_path, "config.json", tf_padding=False, layer_norm_eps=1e-5, image_size=160)
    assert facts.record.image == ImageSpec((96, 128), 140, (0.5,) * 3, (0.5,) * 3, interpolation="bicubic")
    assert (facts.record.pad_mode, facts.record.bn_eps) == ("pad", 1e-5)
    assert facts.origins["size"] == "preprocessor_config.json" and facts.origins["pad_mode"] == "config.json"


@pytest.mark.parametrize("impossible", [{"image_size": -96}, {"image_size": 10**9}, {"layer_norm_eps": float("nan")}])
def test_facts_that_cannot_be_are_refused(tmp_path, impossible):
    with pytest.raises(InputError, match=r"what is stated of it \(config\.json\) cannot be: "):
        facts_beside(tmp_path, "config.json", **{"tf_padding": True, **impossible})


def test_a_published_beginning_of_a_sum_is_enough_to_know_a_file():
    record = find_by_name("torchvision_mobilenet_v2_v1")
    assert len(record.sha256) == 8 and find_by_sha256(record.sha256 + 56 * "0") is record
    assert find_by_sha256(64 * "0") is None


@pytest.mark.parametrize("spoilt", ["{", "[]", '{"layer_norm_eps": "猫"}', '{"image_size": [1]}'])
def test_a_damaged_config_is_named(tmp_path, spoilt):
    facts_beside(tmp_path, "config.json", tf_padding=True)
    (tmp_path / "preprocessor_config.json").unlink(missing_ok=True)
    from test_pretrained_formats import ARRAYS, TABLES, by_names_of

    from pretrained.formats.base import WeightFile

    file = WeightFile("safetensors", by_names_of(TABLES["huggingface"], ARRAYS))
    (tmp_path / "config.json").write_text(spoilt, encoding="utf-8")
    path = tmp_path / "model.safetensors"
    with pytest.raises(InputError, match=r"config\.json: damaged"):
        find_facts(path, file, recognise(path, file.arrays))


def test_convert_writes_a_ckpt_with_its_record(tmp_path, capsys):
    path = save_toy_backbone(tmp_path / "toy.ckpt")
    assert main(["convert", str(path), str(tmp_path / "out.ckpt")]) == 0
    first, second = (recognise(p, read_weights(p).arrays).arrays for p in (path, tmp_path / "out.ckpt"))
    assert first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)
    record = WeightsRecord.from_dict(yaml.safe_load(facts_file(tmp_path / "out.ckpt").read_text(encoding="utf-8")))
    assert record.image == TOY_RECORD.image and record.name == "out"
    assert main(["convert", str(path), str(tmp_path / "out.ckpt")]) == 2
    assert "give the path of a new .ckpt file" in capsys.readouterr().err


def test_inspect_and_list(tmp_path, capsys):
    path = save_toy_backbone(tmp_path / "toy.ckpt")
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert hashlib.sha256(path.read_bytes()).hexdigest() in said
    assert "width         0.1  (toy.ckpt.yaml)" in said and "names         zoo" in said
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    assert all(record.name in said for record in CATALOG)
    assert main(["fetch", "nothing"]) == 2
