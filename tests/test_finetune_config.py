import pytest
import yaml
from conftest import CHECKOUT

from datasets.base import InputError
from finetune.config import Config, load_config, to_yaml


def recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_defaults_then_yaml_then_flags(tmp_path):
    path = recipe(tmp_path, "train:\n  epochs: 7\n  momentum: 0.5\nseed: 3\n")
    config = load_config(path, {"train.epochs": "9"})
    assert (config.train.epochs, config.train.momentum, config.seed) == (9, 0.5, 3)
    assert config.train.batch_size == Config().train.batch_size


def test_numbers_that_yaml_reads_as_text(tmp_path):
    assert (
        load_config(recipe(tmp_path, "train: {learning_rate: 1e-3, weight_decay: 4E-5}")).train.learning_rate == 0.001
    )


def test_what_is_written_reads_back(tmp_path):
    config = load_config(None, {"name": "猫", "train.class_weights": "balanced", "exist_ok": "true", "device_id": "2"})
    assert load_config(recipe(tmp_path, to_yaml(config))) == config
    assert yaml.safe_load(to_yaml(config))["name"] == "猫"


@pytest.mark.parametrize(
    "text, words",
    [
        ("train: {epoch: 3}", ("recipe.yaml", "'train.epoch'", "'train.epochs'")),
        ("epochs: 3", ("unknown setting 'epochs'", "'train.epochs'")),
        ("train: {epochs: many}", ("train.epochs must be of type int", "'many'")),
        ("train: {epochs: 2.5}", ("train.epochs must be of type int", "2.5")),
        ("train: {epochs: true}", ("train.epochs must be of type int",)),
        ("train: {epochs: 0}", ("train.epochs must be at least 1", "found 0")),
        ("train: {epochs: null}", ("train.epochs must be of type int",)),
        ("train: {learning_rate: -1}", ("train.learning_rate must be at least",)),
        ("train: {learning_rate: .nan}", ("train.learning_rate must be at least",)),
        ("train: {optimizer: adamw}", ("train.optimizer must be one of sgd, momentum, adam", "'adamw'")),
        ("data: {views: perhaps}", ("data.views must be of type bool",)),
        ("data: {dataset_path: [a]}", ("data.dataset_path must be of type str",)),
        ("export: {file_format: [ONX]}", ("export.file_format must be one of MINDIR, ONNX",)),
        ("a: [1", ("not readable as YAML",)),
        ("- 1", ("expected `key: value` lines",)),
    ],
)
def test_errors_say_what_and_where(tmp_path, text, words):
    with pytest.raises(InputError) as caught:
        load_config(recipe(tmp_path, text))
    for word in words:
        assert word in str(caught.value)


def test_no_such_recipe():
    with pytest.raises(InputError, match=r"nothing\.yaml: no such recipe"):
        load_config("nothing.yaml")


def test_an_empty_recipe_or_section_is_the_defaults(tmp_path):
    assert load_config(recipe(tmp_path, "")) == load_config(recipe(tmp_path, "train:\n")) == Config()


@pytest.mark.parametrize("path", sorted((CHECKOUT / "finetune" / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_opens_with_its_command_and_result(path):
    assert load_config(str(path)).train.epochs > 0
    head = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    commands = [f"python -m finetune run {way}" for way in (f"finetune/configs/{path.name}", f"--recipe {path.stem} ")]
    assert any(command in line for command in commands for line in head)
    assert any("Measured" in line for line in head)


def test_lists_of_numbers_and_null_from_the_command_line(tmp_path):
    config = load_config(None, {"model.layers": "300,100", "model.backbone": "null", "train.augment.shift": "2"})
    assert config.model.layers == [300, 100] and config.model.backbone is None and config.train.augment.shift == 2.0
    assert load_config(recipe(tmp_path, to_yaml(config))) == config
    for text in ("[12, 32]", "12, 32", "12,32,"):
        assert load_config(None, {"model.filters": text}).model.filters == [12, 32]
    for key, value, words in (("model.filters", "6,x", "model.filters must be of type list"),
                              ("model.filters", "6,0", "model.filters must be at least 1, found 0"),
                              ("train.augment.rotate", "200", "at most 180")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            load_config(None, {key: value})
