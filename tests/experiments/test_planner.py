from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from recdistill.errors import ConfigError, KnowledgeError
from recdistill.experiments.naming import available_strategies
from recdistill.experiments.planner import make_plan
from recdistill.experiments.space import search_space, with_values
from recdistill.experiments.table_lines import SWEEP
from recdistill.knowledge import load_knowledge, save_knowledge
from recdistill.strategies import STRATEGIES


def plan(shop, table="table5", **changes):
    knowledge = changes.pop("knowledge", [shop.knowledge])
    return make_plan(table, shop.dataset, knowledge, **{"words": shop.words, **changes})


def names(made):
    return [line.name for line in made.lines]


def test_table5_takes_the_papers_students_and_the_lines_that_exist(shop):
    made = plan(shop)
    assert made.students == ["gru4rec", "sasrec", "dros"]
    assert names(made)[0] == "none"
    assert {"rd", "hint", "dllm2rec"} <= set(names(made))
    assert any("kar" in note and "words.folder" in note for note in made.notes)
    assert any("llm-cf" in note and "words.folder" in note for note in made.notes)
    assert made.seeds == (1, 2, 3)  # not 0, which tunes
    dros = [line for line in made.lines if line.student == "dros"]
    assert {(line.config.student.name, line.config.loss.name) for line in dros} == {("sasrec", "dros")}


def test_every_strategy_recipe_and_encoder_can_be_a_line(shop):
    made = plan(shop, strategies=["all"], students=["sasrec"])
    left_out = {
        note.split(",")[1].split(":")[0].strip() for note in made.notes if note.startswith("Left out, ")
    }
    assert set(names(made)) | left_out >= set(available_strategies())
    assert set(STRATEGIES) - {"importance"} <= set(available_strategies())


def test_parts_join_and_wrong_names_are_refused(shop):
    made = plan(shop, students=["sasrec"], strategies=["rd+hint+text_only"])
    config = made.lines[-1].config
    assert ([s.name for s in config.strategies], config.item_encoder.name) == (["rd", "hint"], "text_only")
    for changes, error in (
        ({"strategies": ["rdd"]}, "unknown strategy 'rdd'. Did you mean 'rd'"),
        ({"strategies": ["collaborative+text_only"]}, "2 item encoders"),
        ({"students": ["sasrek"]}, "unknown student 'sasrek'. Did you mean 'sasrec'"),
        ({"table": "table9"}, "unknown table 'table9'"),
        ({"words": ["seed=3"]}, "Use --seeds"),
        ({"words": ["caser.horizontal=3"]}, "no run of table5 has"),
        ({"words": ["rd.tempo=3"], "strategies": ["rd"]}, "unknown option of strategy rd 'tempo'"),
    ):
        with pytest.raises(ConfigError, match=error.replace(".", r"\.")):
            plan(shop, **changes)


def test_words_reach_the_runs_that_have_the_part_and_are_not_tuned(shop):
    made = plan(shop, students=["sasrec"], strategies=["rd", "hint"], words=[*shop.words, "rd.weight=0.7"])
    none, rd, hint = made.lines
    assert rd.config.strategies[0].weight == 0.7
    assert [p.key for p in rd.study.space] == ["train.weight_decay", "train.learning_rate"]
    assert "hint.weight" in [p.key for p in hint.study.space]
    assert [p.key for p in none.study.space] == ["train.weight_decay", "train.learning_rate"]


def test_a_table_needs_a_teacher_and_says_what_a_teacher_lacks(shop, tmp_path):
    with pytest.raises(KnowledgeError, match="--knowledge k/"):
        plan(shop, knowledge=[])
    assert plan(shop, "table4", knowledge=[]).lines == ()
    poor = replace(load_knowledge(shop.knowledge), item_embeddings=None)
    save_knowledge(poor, tmp_path / "poor")
    made = plan(shop, knowledge=[tmp_path / "poor"], students=["sasrec"], strategies=["rd", "hint"])
    assert names(made) == ["none", "rd"]
    assert made.notes == ("Left out, hint: the knowledge lacks item_embeddings; it has "
                          "ranking, ranking_distance, target_distance, target_rank, target_rank_unseen.",)  # fmt: skip


def test_two_teachers_share_the_plain_student(shop, tmp_path):
    shutil.copytree(shop.knowledge, tmp_path / "other")
    made = plan(shop, knowledge=[shop.knowledge, tmp_path / "other"], students=["sasrec"], strategies=["rd"])
    assert names(made) == ["none", "rd [k]", "rd [other]"]


def test_ablations_take_what_the_whole_was_tuned_to(shop):
    made = plan(shop, "table7")
    assert names(made) == ["w/o all_r", "w/o w_p", "w/o w_c", "w/o w_o", "DLLM2Rec"]
    assert len(made.studies) == 1
    values = {"importance.weight": 0.9, "collaborative.weight": 0.4, "train.learning_rate": 0.002}
    configs = {line.name: line.tuned(values) for line in made.lines}
    assert configs["w/o all_r"].strategies == []
    assert configs["w/o w_c"].strategies[0].weight == 0.9
    assert configs["w/o w_c"].strategies[0].options["gamma_confidence"] == 0
    assert {c.item_encoder.options["weight"] for c in configs.values()} == {0.4}
    assert {c.train.learning_rate for c in configs.values()} == {0.002}


def test_what_is_added_in_place_of_a_part_is_tuned_itself(shop):
    made = plan(shop, "table8")
    lines = {line.name: line for line in made.lines}
    assert lines["w/o all_e"].study == lines["DLLM2Rec"].study
    assert lines["Hint"].study != lines["DLLM2Rec"].study
    assert "hint.weight" in [p.key for p in lines["Hint"].study.space]


def test_figure2_changes_one_value_and_shares_runs(shop):
    made = plan(shop, "figure2")
    whole, *points = made.lines
    assert len(points) == sum(len(values) for _, values in SWEEP.values())
    tuned = {"importance.weight": 0.3, "train.weight_decay": 1e-5}
    for point in points:
        ((key, value),) = point.fixed.items()
        config = point.tuned(tuned)
        changed = whole.config if not point.fixed else with_values(whole.config, tuned | {key: value})
        assert made.identity(config) == made.identity(changed)
        assert config.train.weight_decay == 1e-5
    same = [p for p in points if p.fixed in ({"importance.weight": 0.3}, {"importance.gamma_position": 0.3})]
    assert {made.identity(p.tuned(tuned)) for p in same} == {made.identity(whole.tuned(tuned))}
    with pytest.raises(ConfigError, match="takes one DLLM2Rec recipe apart, not rd"):
        plan(shop, "figure2", strategies=["rd"])


def test_a_run_is_known_by_what_it_depends_on_not_by_where_it_is(shop, tmp_path):
    shutil.copytree(shop.dataset, tmp_path / "moved")
    one = plan(shop, students=["sasrec"], strategies=["rd"])
    two = make_plan(
        "table5",
        tmp_path / "moved",
        [shop.knowledge],
        students=["sasrec"],
        strategies=["rd"],
        words=shop.words,
    )
    folders = [made.folder(line.config, line.student) for made in (one, two) for line in made.lines]
    assert folders[:2] == folders[2:]
    other = plan(shop, students=["sasrec"], strategies=["rd"], words=[*shop.words, "train.batch_size=32"])
    assert not set(folders) & {other.folder(line.config, line.student) for line in other.lines}


@pytest.mark.parametrize("variant", ["paper", "modern"])
def test_the_default_of_every_dimension_is_a_trial(shop, variant):
    made = plan(shop, students=["sasrec"], strategies=["all"], variant=variant, words=[])
    for line in made.lines:
        assert all(parameter.holds_default for parameter in search_space(line.config)), line.name


def test_best_leaves_out_one_lever_at_a_time(shop):
    made = plan(shop, "best", words=["train.epochs=1"])
    assert made.students == ["sasrec"]
    assert made.variant == "modern"
    lines = {line.name: line for line in made.lines}
    assert list(lines) == [
        "none",
        "best",
        "w/o text",
        "w/o ranking",
        "w/o walks",
        "w/o teacher",
        "cross-entropy",
        "half the width",
        "usual dropout",
        "repeats kept",
    ]
    assert [line.name for line in made.lines if line.study] == ["none"]  # the preset is taken as it is
    whole, plain = lines["best"].config, lines["none"].config
    assert (whole.loss.name, plain.loss.name) == ("sampled_ce", "ce")
    assert whole.student.options == {"dropout": 0.4}
    assert lines["usual dropout"].config.student.options == {}
    assert lines["w/o teacher"].config.knowledge is None
    assert lines["w/o teacher"].kind == "student"
    for name, kept in (("w/o text", ["rrd"]), ("w/o ranking", []), ("cross-entropy", ["rrd"])):
        config = lines[name].config
        assert [term.name for term in config.strategies] == kept
        assert config.item_encoder.name == ("ids" if name == "w/o text" else "collaborative")
        assert config.train == whole.train
    assert [line.name for line in made.lines if not line.config.train.walks] == [
        "none",
        "w/o walks",
        "w/o teacher",
    ]
    assert len({made.identity(line.config) for line in made.lines}) == len(made.lines)
    with pytest.raises(ConfigError, match="table5 --variant modern"):
        plan(shop, "best", strategies=["rd"])


def test_best_of_two_teachers_takes_the_first_apart(shop, tmp_path):
    shutil.copytree(shop.knowledge, tmp_path / "other")
    made = plan(shop, "best", knowledge=[shop.knowledge, tmp_path / "other"], words=[])
    assert names(made).count("w/o teacher") == 1
    assert {"best [k]", "best [other]", "w/o text [k]"} <= set(names(made))
    assert [name for name in names(made) if "[other]" in name] == ["best [other]"]
