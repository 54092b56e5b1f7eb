from __future__ import annotations

import pytest

from recdistill.errors import ConfigError
from recdistill.item_encoders import ITEM_ENCODERS
from recdistill.recipes import ABLATIONS, RECIPES, missing_fields, recipe
from recdistill.strategies import STRATEGIES, Importance


def test_every_recipe_names_parts_that_exist_with_options_they_take():
    for name, entry in RECIPES.items():
        assert entry.name == name
        for weight, part, options in entry.strategies:
            assert weight > 0
            STRATEGIES[part](**options)
        if entry.item_encoder:
            assert entry.item_encoder[0] in ITEM_ENCODERS


def test_dllm2rec_has_the_numbers_of_the_paper():
    (_, part, options), *rest = recipe("dllm2rec").strategies
    assert (part, rest) == ("importance", [])
    made = Importance(**options)
    assert (made.gamma_position, made.gamma_confidence, made.gamma_consistency) == (0.3, 0.5, 0.1)
    assert (made.k, made.beta_position, made.beta_confidence, made.variant) == (10, 1.0, 1.0, "paper")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("none", set()),
        ("rd", {"ranking"}),
        ("hint", {"item_embeddings"}),
        ("dllm2rec", {"ranking", "target_distance", "item_embeddings"}),
        ("dllm2rec-official", {"ranking", "ranking_distance", "item_embeddings"}),
        ("dllm2rec-corrected", {"ranking", "target_distance", "item_embeddings"}),
    ],
)
def test_requires(name, fields):
    assert recipe(name).requires == fields


def test_overrides_change_add_and_leave_out():
    changed = recipe("dllm2rec", importance={"k": 5, "weight": 0.8}, collaborative=None, hint={"rank": 64})
    assert changed.item_encoder is None
    assert [(weight, part) for weight, part, _ in changed.strategies] == [(0.8, "importance"), (0.5, "hint")]
    assert changed.strategies[0][2]["k"] == 5
    assert changed.strategies[0][2]["gamma_confidence"] == 0.5
    assert changed.strategies[1][2] == {"rank": 64}
    assert recipe("dllm2rec").strategies[0][2]["k"] == 10


def test_every_ablation_of_the_paper_is_a_recipe():
    for table in ("table7", "table8"):
        for overrides in ABLATIONS[table].values():
            recipe("dllm2rec", **overrides)
    table7, table8 = ABLATIONS["table7"], ABLATIONS["table8"]
    assert recipe("dllm2rec", **table7["w/o all_r"]).strategies == ()
    for row, option in (("w/o w_p", "position"), ("w/o w_c", "confidence"), ("w/o w_o", "consistency")):
        options = recipe("dllm2rec", **table7[row]).strategies[0][2]
        assert [k for k, v in options.items() if v == 0.0] == [f"gamma_{option}"]
    assert recipe("dllm2rec", **table8["w/o all_e"]).item_encoder is None
    assert recipe("dllm2rec", **table8["w/o offset"]).item_encoder[1]["offset"] is False
    assert [part for _, part, _ in recipe("dllm2rec", **table8["Hint"]).strategies] == ["importance", "hint"]


def test_other_levers_take_the_place_of_the_presets_own():
    whole = recipe("best")
    rows = {name: recipe("best", **overrides) for name, overrides in ABLATIONS["levers"].items()}
    assert rows.pop("best") == whole
    for name, changed in rows.items():
        differs = [
            part
            for part in ("strategies", "item_encoder", "preset")
            if getattr(changed, part) != getattr(whole, part)
        ]
        assert len(differs) == 1, name
    assert [part for _, part, _ in rows["soft labels too"].strategies] == ["rrd", "soft_labels"]
    assert rows["soft labels"].strategies == ((2.0, "soft_labels", {"temperature": 1.0}),)
    assert rows["two branches"].item_encoder[0] == "two_branch"
    assert rows["one block"].preset["student"]["options"] == {"dropout": 0.4, "blocks": 1}


def test_every_lever_of_the_preset_can_be_left_out():
    whole = recipe("best")
    rows = {name: recipe("best", **overrides) for name, overrides in ABLATIONS["best"].items()}
    assert rows["best"] == whole
    assert rows["w/o text"].item_encoder is None
    assert rows["w/o ranking"].strategies == ()
    assert (rows["w/o teacher"].item_encoder, rows["w/o teacher"].strategies) == (None, ())
    assert rows["cross-entropy"].preset == {**whole.preset, "loss": {"name": "ce"}}
    assert rows["usual dropout"].preset == {**whole.preset, "student": {"embedding_size": 128, "options": {}}}
    assert rows["half the width"].preset["student"] == {**whole.preset["student"], "embedding_size": 64}
    assert recipe("best") == whole  # nothing of it was changed on the way


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'dllm2rec'"):
        recipe("dlm2rec")
    with pytest.raises(ConfigError, match="Did you mean 'importance'"):
        recipe("dllm2rec", importanc={})
    with pytest.raises(ConfigError, match="collaborative, ids"):
        recipe("dllm2rec", ids={})


def test_missing_fields_are_named():
    assert missing_fields({"ranking"}, {"ranking", "target_distance"}) is None
    error = missing_fields(["target_distance", "ranking"], ["ranking"])
    assert "lacks target_distance; it has ranking" in str(error)
