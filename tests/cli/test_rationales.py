"""``recdistill rationales``, ``distill --strategy`` and ``recommend --explain`` as a user runs them."""

import json

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from command import contents
from recdistill.cli.main import app
from recdistill.errors import RecdistillError
from recdistill.knowledge import load_words
from recdistill.teachers.rationales import Slim, Work, make_words
from says import Says, rationale
from shop import ring_dataset
from tiny_lm import tiny_lm

STUDENT = ["student.embedding_size=16", "student.length=8", "train.epochs=2", "train.batch_size=32"]


def run(*words):
    said = CliRunner().invoke(app, [str(word) for word in words])
    if said.exception is not None and not isinstance(said.exception, SystemExit):
        raise said.exception
    return said.output


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    data = ring_dataset(24, 8)
    data.save(folder / "d")
    small = tiny_lm("llama", extra=tuple(data.catalogue.titles))
    small.model.config.max_position_embeddings = 1024
    small.model.save_pretrained(folder / "lm")
    small.tokenizer.save_pretrained(folder / "lm")
    small.model.config.max_position_embeddings = 256
    make_words(Slim(), Work(data, Says(rationale), folder / "slim"))
    return folder


def test_from_prompts_to_explained_recommendations(place):
    asked = ["rationales", "kar", "--dataset", place / "d", "--model", place / "lm", "--out", place / "t"]
    asked += ["--max-new-tokens", "6", "domain=toys", "most=3", "factors=[colour]"]
    shown = run(*asked, "--dry-run")
    assert "--- items, the first of 40" in shown
    assert "colour" in shown
    assert "prompts" in shown
    assert not (place / "t").exists()
    first = run(*asked)
    assert "tokens written" in first
    assert "40 of 40 rows answered (0 of them before this run)" in first
    assert "rows may read a text about their user" in first
    assert "40 of 40 rows answered (40 of them before this run)" in run(*asked)
    held = contents(place)
    with pytest.raises(RecdistillError, match="is no folder"):  # the old answers are not lost to a wrong name
        run(*asked, "--overwrite", "--model", place / "nowhere")
    assert contents(place) == held
    words = load_words(place / "t")
    assert words.manifest["generator"]["model"] == "lm"
    out = place / "r"
    run("distill", "--dataset", place / "d", "--strategy", "kar", "--knowledge", place / "t", "--out", out, *STUDENT,
        "kar.specific=2", "kar.inner=16")  # fmt: skip
    assert "kar" in run("evaluate", out)
    user = str(int(words["users"][0]))
    table = run("recommend", out, "--history", "i03", "i04", "i05", "--user", user, "--explain", "-k", "2")
    assert "about the user" in table
    lines = run(
        "recommend", out, "--history", "i03", "i04", "i05", "--user", user, "--explain", "-k", "2", "--json"
    )
    answers = [json.loads(line) for line in lines.splitlines()]
    assert len(answers) == 2
    texts = words.table("users").filter(pl.col("user") == int(user))["text"].to_list()
    assert answers[0]["rationale"] in texts
    assert len(answers[0]["because"]) == 3
    stranger = run("recommend", out, "--history", "i03", "i04", "--explain", "-k", "1", "--json")
    assert json.loads(stranger)["rationale"] is None


def test_the_items_that_slim_names_are_a_teacher_like_any_other(place):
    given = [
        "teach",
        "slim-items",
        place / "slim",
        "--dataset",
        place / "d",
        "--out",
        place / "named",
        "--top-k",
        "9",
    ]
    said = run(*given)
    assert "are titles" in said
    assert "slim-items" in said
    assert "rows have a ranking" in run(*given)  # done before: read, and told again
    out = place / "r-named"
    run("distill", "--dataset", place / "d", "--strategy", "rd", "--knowledge", place / "named", "--out", out, *STUDENT,
        "train.coverage=mask", "rd.k=5")  # fmt: skip
    assert "rd" in run("evaluate", out)


def test_slim_with_ids_and_without_on_another_catalogue(place):
    for name in ("slim-id", "slim-agnostic"):
        out = place / name
        run("distill", "--dataset", place / "d", "--strategy", name, "--knowledge", place / "slim", "--out", out,
            *STUDENT, f"{name}.use=[preferences,categories]", f"{name}.rank=8")  # fmt: skip
        assert name in run("evaluate", out)
    new = place / "new.csv"
    new.write_text("item_id,title\nn1,Saga 1 part 90\nn2,Saga 4 part 91\nn3,\n")
    lines = run("recommend", place / "slim-agnostic", "--catalogue", new, "--history", "n1", "-k", "9", "--json",
                "--keep-seen")  # fmt: skip
    answers = [json.loads(line) for line in lines.splitlines()]
    assert {answer["item_id"] for answer in answers} == {"n1", "n2"}
    assert np.isfinite([answer["score"] for answer in answers]).all()
    ring_dataset(20, 8, seed=9).save(place / "elsewhere")
    there = run("evaluate", place / "slim-agnostic", "--dataset", place / "elsewhere", "--another-catalogue")
    assert "slim-agnostic, trained elsewhere" in " ".join(there.split()), there
    with pytest.raises(RecdistillError, match="none for others"):
        run("recommend", place / "slim-id", "--catalogue", new, "--history", "n1")


def test_a_folder_of_rationales_is_judged(place, monkeypatch):
    monkeypatch.setenv("COLUMNS", "220")
    lines = run("strategies", "--knowledge", place / "slim").splitlines()
    kar, slim = (next(line for line in lines if name in line) for name in ("kar", "slim-id"))
    assert "no rationales of kar" in kar
    assert "yes" in slim


def test_recipes_join_with_strategies_in_one_config(place):
    shown = run(
        "distill",
        "--dataset",
        place / "d",
        "--strategy",
        "hint+kar",
        "--knowledge",
        place / "slim",
        "--dry-run",
    )
    assert "name: hint" in shown
    assert "name: kar" in shown
    assert f"folder: {(place / 'slim').resolve()}" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rationales", "kr", "--dataset", "d", "--model", "m", "--out", "t"], "kind of rationales"),
        (["rationales", "kar", "--dataset", "d", "--model", "m", "--out", "t", "most"], "is no option"),
        (
            ["rationales", "kar", "--dataset", "d", "--model", "m", "--out", "t", "mst=3"],
            "Did you mean 'most'",
        ),
    ],
)
def test_mistakes_are_said_before_the_work(words, message):
    with pytest.raises(RecdistillError, match=message):
        run(*words)


def test_folders_and_strategies_that_do_not_fit_are_refused(place, tmp_path):
    base = ["distill", "--dataset", place / "d", "--out", tmp_path / "r", *STUDENT]
    with pytest.raises(RecdistillError, match="no strategy of this run reads it"):
        run(*base, "--strategy", "none", "--knowledge", place / "slim")
    with pytest.raises(RecdistillError, match="these are of 'slim'"):
        run(*base, "--strategy", "kar", "--knowledge", place / "slim")
    with pytest.raises(RecdistillError, match="recdistill rationales slim"):
        run(*base, "--strategy", "slim-id")
