"""A training file is read strictly, with its data beside it, and says everything that is wrong at once."""

import pytest
import tomli_w
from pydantic import ValidationError
from trials import DATA, data_of, tables, training, write_training

from volrecon.errors import ConfigError
from volrecon.training.config import Source, Training, load_training


def written(folder, stated):
    (folder / "data.toml").write_text(tomli_w.dumps(DATA), encoding="utf-8")
    (folder / "t.toml").write_text(tomli_w.dumps({"data": "data.toml", **stated}), encoding="utf-8")
    return folder / "t.toml"


def source(**changes):
    return {"file": "a.npz", "origin": "o", "licence": "l", **changes}


def test_data_are_a_file_beside_it_or_a_table(tmp_path, monkeypatch):
    path = write_training(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_training(path) == training()
    (tmp_path / "inline.toml").write_text(tomli_w.dumps({**tables(), "data": DATA}), encoding="utf-8")
    assert load_training(tmp_path / "inline.toml") == training()


def test_a_training_survives_its_own_dump():
    assert Training.model_validate(training().model_dump(mode="json")) == training()


def test_an_unknown_data_file_is_named(tmp_path):
    path = written(tmp_path, tables())
    (tmp_path / "data.toml").unlink()
    with pytest.raises(ConfigError, match=r"data\.toml: cannot be read \(No such file"):
        load_training(path)
    path.write_text('data = "a\\u0000b"', encoding="utf-8")
    with pytest.raises(ConfigError, match="null byte"):
        load_training(path)


def test_all_problems_come_at_once(tmp_path):
    stated = tables(budget={"steps": 3, "minutes": 1.0}, noise={"low": 0.5}, groups={"weights": [1.0]}, sede=3)
    stated["optimiser"]["learning_rate"] = "fast"
    stated["patches"]["sizes"] = [8.0, 16]
    del stated["about"]
    with pytest.raises(ConfigError) as caught:
        load_training(written(tmp_path, stated))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("t.toml: 7 problems"), lines
    for key, message in {
        "about": "missing",
        "sede": "unknown key",
        "optimiser.learning_rate": "found 'fast'",
        "patches.sizes.0": "found 8.0",
        "budget": "give either steps or minutes",
        "noise": "low 0.5, median 0.1",
        "groups": "3 gaps but 1 weights",
    }.items():
        assert any(line.strip().startswith(f"{key}:") and message in line for line in lines), (key, lines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": {"steps": None}}, "give either steps or minutes"),
        ({"budget": {"minutes": 2.0}}, "give either steps or minutes"),
        ({"groups": {"gaps": [1, 2]}}, "2 gaps but 3 weights"),
        ({"patches": {"probabilities": [1.0]}}, "2 sizes but 1 probabilities"),
        ({"patches": {"sizes": []}}, "at least 1 item"),
        ({"noise": {"high": 0.05}}, "not in this order"),
        ({"noise": {"median": 50.0}}, "not in this order"),
        ({"noise": {"low": float("nan")}}, "finite"),
        ({"network": {"kind": "transformer"}}, "'unet'"),
        ({"patches": {"padded": True}, "validation": {"size": 17}}, "may be 16 at most"),
        ({"precision": "float16"}, "precision"),
        ({"seed": -1}, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        training(**changes)


def test_a_step_or_a_time_budget():
    assert training().budget.minutes is None
    assert training(budget={"steps": None, "minutes": 2}).budget.minutes == 2.0


def test_key_ranges():
    stated = Source.model_validate(source(keys=["hu[0:3]", "b", "hu[7]", "hu_c[10:11]"]))
    assert stated.expanded(stated.keys) == ("hu[0]", "hu[1]", "hu[2]", "b", "hu[7]", "hu_c[10]")
    assert len(stated.expanded(("hu[0:44]",))) == 44
    assert stated.expanded(("hu[0:44]",))[-1] == "hu[43]"


@pytest.mark.parametrize("name", ["hu[3:3]", "hu[5:2]"])
def test_an_empty_range_is_refused(name):
    """Without this, a source whose only range is empty would quietly stand for the file's default array."""
    with pytest.raises(ValidationError, match="is empty"):
        data_of(sources=[source(keys=[name])])
    with pytest.raises(ValidationError, match="is empty"):
        data_of(sources=[source(keys=["a"], held_out=[name])])


def test_no_volume_is_trained_on_and_held_out():
    with pytest.raises(ValidationError, match=r"a\.npz:hu\[1\]: trained on and held out"):
        data_of(sources=[source(keys=["hu[0:2]"], held_out=["hu[1:3]"])])
    with pytest.raises(ValidationError, match=r"a\.npz:x: trained on and held out"):
        data_of(sources=[source(keys=["x"]), source(file="b.npz"), source(held_out=["x"])])
    assert data_of(sources=[source(keys=["x"]), source(file="b.npz", held_out=["x"])])


def test_there_must_be_something_to_train_on():
    with pytest.raises(ValidationError, match="nothing to train on"):
        data_of(sources=[])
    with pytest.raises(ValidationError, match="nothing to train on"):
        data_of(sources=[source(held_out=["x"])])
    assert data_of(sources=[], phantoms={"count": 1, "shape": [8, 16, 16], "voxel_mm": 4.0})


@pytest.mark.parametrize("missing", ["file", "origin", "licence"])
def test_every_source_says_where_it_is_from(missing):
    stated = source()
    del stated[missing]
    with pytest.raises(ValidationError, match=rf"sources\.0\.{missing}"):
        data_of(sources=[stated])
