"""Recipes: everything unknown or ill-typed is refused by name, flags override, and what is written back means the same."""

import copy
import re
from pathlib import Path

import pytest
import yaml
from tiny_runs import tiny_recipe, write_recipe

import command_line
import train
from errors import UserError
from recipe_parser import make_recipe

MISSING = object()


def changed(path: str, value, **changes) -> dict:
    """The tiny recipe with one value set (MISSING: removed), made where it is not there."""
    plain = tiny_recipe("data", {"lwf": {}, "replay": {}}, **changes)
    place = plain
    *parents, last = path.split(".")
    for key in parents:
        place = place.setdefault(key, {})
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return plain


def refusal(plain: dict, flags=()) -> str:
    with pytest.raises(UserError) as caught:
        make_recipe(plain, flags, "my.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("sead", "seed"),
        ("imagesize", "image_size"),
        ("head.layer", "layers"),
        ("norm.statistic", "statistics"),
        ("neck.chanels", "channels"),
        ("backbone.pretrain", "pretrained"),
        ("stages.seg.epoch", "epochs"),
        ("stages.seg.augment.zoom_mim", "zoom_min"),
        ("stages.seg.task.losstride", "loss_stride"),
        ("stages.det.task.radus", "radius"),
        ("stages.cls.dataset.foldr", "folder"),
        ("strategies.lwf.temprature", "temperature"),
        ("strategies.replay.batchsize", "batch_size"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(path, nearest):
    text = refusal(changed(path, 1))
    assert text.startswith("my.yaml: ") and f"'{path}'" in text and f"did you mean '{nearest}'?" in text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("image_size", "large"),
        ("seed", 1.5),
        ("memory_per_task", [10]),
        ("order", "seg"),
        ("precision", "float16"),
        ("head", 3),
        ("head.layers", "three"),
        ("norm", None),
        ("norm.layer", "instance"),
        ("neck", "fpn"),
        ("neck.channels", "many"),
        ("backbone.pretrained", 3),
        ("stages", ["seg"]),
        ("stages.seg", None),
        ("stages.seg.lr", "fast"),
        ("stages.seg.lr", None),
        ("stages.seg.schedule", "linear"),
        ("stages.seg.rates", [1]),
        ("stages.seg.rates", {"backbone": "slow"}),
        ("stages.seg.augment", 0.5),
        ("stages.seg.augment.flip", "yes"),
        ("stages.seg.task", "segmentation"),
        ("strategies", ["lwf"]),
        ("strategies.lwf", 4),
        ("strategies.lwf.weights", 4),
        ("strategies.lwf.temperature", [2]),
        ("strategies.replay.labels", "some"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(path, value):
    text = refusal(changed(path, value))
    assert text.startswith("my.yaml: ") and path in text


@pytest.mark.parametrize(
    "path", ["backbone", "neck", "stages", "stages.seg.task", "stages.seg.dataset", "stages.seg.epochs"]
)
def test_what_is_missing_is_named(path):
    assert path in refusal(changed(path, MISSING))


@pytest.mark.parametrize(
    ("path", "value", "nearest"),
    [
        ("backbone.name", "resnet50", "efficientnet_lite"),
        ("backbone.name", 3, "efficientnet_lite"),
        ("neck.name", "fpm", "fpn"),
        ("stages.seg.task.name", "segmentatoin", "segmentation"),
        ("stages.seg.dataset.name", "vok", "voc"),
        ("strategies.lvf", {}, "lwf"),
    ],
)
def test_an_unknown_name_is_named_with_those_there_are(path, value, nearest):
    assert nearest in refusal(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("image_size", 100),
        ("image_size", 0),
        ("head.layers", 0),
        ("head.channels", -8),
        ("memory_per_task", -1),
        ("eval_every", -1),
        ("fold", 5),
        ("order", []),
        ("order", ["seg", "seg"]),
        ("stages.seg.epochs", 0),
        ("stages.seg.batch_size", 0),
        ("stages.seg.lr", 0.0),
        ("stages.seg.lr", float("nan")),
        ("stages.seg.weight_decay", -0.1),
        ("stages.seg.warmup", 1.5),
        ("stages.seg.patience", -1),
        ("stages.seg.factor", 1.0),
        ("stages.seg.clip_norm", -1.0),
        ("stages.seg.rates", {"neck": -1.0}),
        ("stages.seg.rates", dict.fromkeys(["backbone", "neck", "shared1", "shared2", "seg"], 0.0)),
        ("stages.seg.augment", {"flip": 1.5}),
        ("stages.seg.augment", {"zoom_min": 2.0}),
        ("stages.seg.augment", {"zoom_min": 0.0}),
        ("stages.seg.augment", {"stretch": 0.5}),
        ("stages.seg.augment", {"jitter": 1.5}),
    ],
)
def test_a_value_out_of_range_is_refused(path, value):
    assert path in refusal(changed(path, value))


def test_parts_and_stages_are_matched_by_name():
    assert "the part 'shared3'; did you mean 'shared" in refusal(changed("stages.seg.rates", {"shared3": 0.1}))
    assert "the part 'sge'; did you mean 'seg'?" in refusal(changed("stages.det.rates", {"sge": 0.1}))
    assert make_recipe(changed("stages.det.rates", {"shared2": 0.1, "cls": 1.0}))
    assert "the stage 'sge'; did you mean 'seg'?" in refusal(changed("order", ["sge"]))
    assert "a part of the trunk" in refusal(changed("stages.neck", tiny_recipe("data")["stages"]["seg"]))
    assert "letters, digits" in refusal(changed("stages.a-b", tiny_recipe("data")["stages"]["seg"]))


@pytest.mark.parametrize("strategies", [{}, None, {"finetune": {}}, {"finetune": None}, {"ema": None}], ids=str)
def test_no_strategy_or_none_with_options_is_a_recipe_too(strategies):
    recipe = make_recipe(changed("strategies", strategies))[0]
    assert list(recipe.strategies) == list(strategies or {})
    without = tiny_recipe("data")
    del without["strategies"]
    assert make_recipe(without)[0].strategies == {}


@pytest.mark.parametrize(
    ("flags", "read", "expected"),
    [
        (["--stages.seg.epochs", "7"], lambda r: r.stages["seg"].epochs, 7),
        (["--stages.seg.epochs=7"], lambda r: r.stages["seg"].epochs, 7),
        (["--stages.det.lr", "1e-2"], lambda r: r.stages["det"].lr, 0.01),
        (["--stages.det.task.radius", "2.5"], lambda r: r.stages["det"].task["radius"], 2.5),
        (["--stages.seg.augment.flip", "0"], lambda r: r.stages["seg"].augment.flip, 0.0),
        (["--stages.seg.rates.backbone", "0.1"], lambda r: r.stages["seg"].rates, {"neck": 2.0, "backbone": 0.1}),
        (["--stages.seg.rates", "{backbone: 0}"], lambda r: r.stages["seg"].rates, {"backbone": 0.0}),
        (["--backbone.name", "efficientnet_b1"], lambda r: r.backbone["name"], "efficientnet_b1"),
        (["--backbone.name=efficientnet_lite1"], lambda r: r.backbone["pretrained"], True),  # not carried over
        (["--backbone.name", "efficientnet_lite0"], lambda r: r.backbone["pretrained"], False),  # the same: kept
        (["--neck.name", "concat", "--neck.channels", "32"], lambda r: r.neck["mid_channels"], 512),
        (["--stages.det.task.name", "detection_grid"], lambda r: r.stages["det"].task["box_weight"], 5.0),
        (["--strategies.lwf.temperature", "3"], lambda r: r.strategies["lwf"]["temperature"], 3.0),
        (["--strategies.lwf.temperature", "{seg: 3}"], lambda r: r.strategies["lwf"]["temperature"], {"seg": 3.0}),
        (["--strategies.lwf.weights.det", "5"], lambda r: r.strategies["lwf"]["weights"], {"seg": 4.0, "det": 5.0}),
        (["--strategies.replay.labels", "false"], lambda r: r.strategies["replay"]["labels"], False),
        (["--order", "[cls, seg]"], lambda r: [stage.name for stage in r.running()], ["cls", "seg"]),
        (["--memory_per_task", "null"], lambda r: r.memory_per_task, None),
        (["--head.layers", "3", "--seed", "5"], lambda r: (r.head.layers, r.seed), (3, 5)),
        ([], lambda r: [stage.name for stage in r.running()], ["seg", "det", "cls"]),
    ],
)
def test_flags_override(flags, read, expected):
    plain = changed("strategies.lwf.weights", {"seg": 4.0}, stages={"seg": {"rates": {"neck": 2.0}}})
    before = copy.deepcopy(plain)
    recipe = make_recipe(plain, flags)[0]
    assert read(recipe) == expected
    assert plain == before
    assert make_recipe(recipe.resolved)[0] == recipe  # the flags are in what is written to the run


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--stages.seg.epoch", "3"], "did you mean --stages.seg.epochs?"),
        (["--strategies.lwf.temprature", "3"], "did you mean --strategies.lwf.temperature?"),
        (["--strategies.replay.batch_size", "many"], "strategies.replay.batch_size"),
        (["--backbone.name", "resnet50"], "unknown name 'resnet50'"),
        (["--backbone.name", "efficientnet_lite0", "--backbone.hidden", "3"], "unknown flag --backbone.hidden"),
        (["--order", "[sge]"], "did you mean 'seg'?"),
        (["--stages.seg.lr", "-1"], "stages.seg.lr"),
        (["stray"], "stray"),
        (["--backbone", "efficientnet_lite0"], "backbone"),
    ],
)
def test_bad_flags_are_named(flags, words):
    assert words in refusal(tiny_recipe("data"), flags)


def leaves(plain: dict, prefix: str = "") -> list[str]:
    found = []
    for key, value in plain.items():
        table = prefix + key in TABLES
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and not table else [prefix + key]
    return found


TABLES = {f"stages.{name}.rates" for name in ("seg", "det", "cls")}  # their keys are the user's


def test_help_lists_every_value_with_its_meaning(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")
    path = write_recipe(tmp_path / "recipe.yaml", tiny_recipe("data"))
    with pytest.raises(SystemExit) as end:
        train.main(["--config", str(path), "--help"])
    assert end.value.code == 0
    entries = re.split(
        r"\n  (?=-)", capsys.readouterr().out
    )  # "--name METAVAR[, --other METAVAR]  meaning (type: ...)"
    listed = {re.match(r"--([\w.]+)", entry)[1]: entry for entry in entries if entry.startswith("--")}
    names = [
        *leaves(make_recipe(tiny_recipe("data"))[0].resolved),
        *("config", "run_dir", "resume", "baselines", "device"),
    ]
    assert len(names) > 60
    for name in names:
        meaning = re.split(r"\((?:type|required|default)", listed[name])[0]
        words = [word for word in meaning.split() if not word.startswith(("--", "{")) and not word.isupper()]
        assert len(words) > 1, f"--{name} has no meaning in --help: {listed[name]}"


def test_what_the_command_line_chooses(tmp_path):
    path = str(write_recipe(tmp_path / "mine.yaml", tiny_recipe("data")))
    options = command_line.parse(["--config", path, "--seed", "4"])
    assert options.recipe.seed == 4
    assert re.fullmatch(r"runs/mine-\d{8}-\d{6}", str(options.run_dir))
    assert (options.resume, options.baselines, options.device) == (False, False, "auto")
    weights = command_line.parse(["--config", path, "--backbone_weights", "w.pt", "--run_dir", "x"])
    assert weights.recipe.backbone["weights"] == "w.pt"
    assert weights.run_dir == Path("x")
    with pytest.raises(UserError, match=r"unknown device 'gpu'"):
        command_line.choose_device("gpu")
    with pytest.raises(UserError, match=r"no such recipe; did you mean 'mine.yaml'\?"):
        command_line.parse(["--config", path.replace("mine", "main")])
    assert yaml.safe_load(Path(path).read_text())["seed"] == 0
