"""KAR's factors asked of the model: once, kept, in every prompt, and never made up."""

import json

import pytest

from recdistill.errors import ConfigError, KnowledgeError, RunError
from recdistill.teachers.rationales import Kar, Work, make_words, planned_cost
from recdistill.teachers.rationales.factors import ask_factors, parse_factors
from recdistill.teachers.rationales.kar import ASK
from says import Says, told_titles
from shop import ITEMS, ring_dataset


@pytest.fixture(scope="module")
def data():
    return ring_dataset(12, 10)


def speaker(answer='Sure: ["colour of the saga", "number of the part"]'):
    def speak(prompt):
        if "JSON list" in prompt:
            return answer
        return f"likes {told_titles(prompt)[0]}" if told_titles(prompt) else "about " + prompt.split('"')[1]

    return speak


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["genre", "mood"]', ("genre", "mood")),
        ('Here:\n```json\n["genre", "mood", "Genre"]\n```', ("genre", "mood")),
        ('{"factors": ["genre", "mood"]}', ("genre", "mood")),
        ("1. **Genre**: what kind of film\n2) Mood - light or dark\n\n3. Cast", ("Genre", "Mood", "Cast")),
        ("- well-known cast\n• mood", ("well-known cast", "mood")),
        ("genre, mood; cast.", ("genre", "mood", "cast")),
        ("[1] see below\n- genre", ("genre",)),
        ("- " + "very " * 30 + "long\n- mood", ("mood",)),
        ("\n".join(f"{k}. factor {k}" for k in range(1, 20)), tuple(f"factor {k}" for k in range(1, 13))),
        ('["genre", "mo', ("genre", "mo")),
        ("", ()),
        ("...", ()),
    ],
)
def test_every_shape_of_a_list_is_read(text, expected):
    found = parse_factors(text)
    assert found == expected or (text == '["genre", "mo' and "genre" in found[0])


def test_they_are_asked_once_before_all_else_and_stand_in_every_prompt(data, tmp_path):
    said, big = [], Says(speaker())
    work = Work(data, big, tmp_path / "t", say=said.append)
    words = make_words(Kar(factors=ASK, most=4), work)
    assert "JSON list" in big.asked[0].prompt
    assert sum("JSON list" in one.prompt for one in big.asked) == 1
    rest = big.asked[1:]
    assert len(rest) > ITEMS
    assert all("colour of the saga; number of the part" in one.prompt for one in rest)
    assert words.manifest["factors"] == ["colour of the saga", "number of the part"]
    assert any("colour of the saga; number of the part" in line for line in said)
    assert json.loads((tmp_path / "t" / "factors.json").read_text())["factors"] == words.manifest["factors"]
    again = Says(speaker())
    make_words(Kar(factors=ASK, most=4), Work(data, again, tmp_path / "t"))
    assert not again.asked
    given = Says(speaker())
    make_words(Kar(factors=words.manifest["factors"], most=4), Work(data, given, tmp_path / "given"))
    assert [one.prompt for one in given.asked] == [one.prompt for one in rest]
    assert (tmp_path / "given/words.safetensors").read_bytes() == (
        tmp_path / "t/words.safetensors"
    ).read_bytes()


def test_a_person_may_change_them_before_the_prompts_are_asked(data, tmp_path):
    out = tmp_path / "t"

    chosen = Kar(factors=ASK, most=4)
    ask_factors(Work(data, Says(speaker()), out), chosen.words, {"maker": "kar"})
    (out / "factors.json").write_text('{"factors": ["by hand", "mood"]}')
    big = Says(speaker())
    make_words(Kar(factors=ASK, most=4), Work(data, big, out))
    assert all("by hand; mood" in one.prompt for one in big.asked)
    (out / "factors.json").write_text('{"factors": ["too late", "mood"]}')
    with pytest.raises(KnowledgeError, match="other"):  # the answers there are to other prompts
        make_words(Kar(factors=ASK, most=4), Work(data, Says(speaker()), out))
    (out / "factors.json").write_text('{"factors": "genre"}')
    with pytest.raises(RunError, match="Mend it"):
        make_words(Kar(factors=ASK, most=4), Work(data, Says(speaker()), out))


@pytest.mark.parametrize("answer", ["One: genre", "...", None])
def test_an_answer_without_factors_ends_it_and_nothing_takes_their_place(data, tmp_path, answer):
    big = Says(speaker(answer))
    with pytest.raises(KnowledgeError, match=r"factors=\[genre,mood\]"):
        make_words(Kar(factors=ASK), Work(data, big, tmp_path / "t"))
    assert len(big.asked) == 1
    assert not (tmp_path / "t" / "factors.json").exists()


def test_the_question_names_no_factor_counts_in_the_cost_and_other_words_are_refused(data, tmp_path):
    work = Work(data, Says(speaker()), tmp_path / "t")
    chosen = Kar(factors=ASK, domain="toys")
    asked = chosen.asks(work)
    assert list(asked) == ["factors", "items", "users"]
    assert not any(factor in asked["factors"][0].prompt for factor in chosen.words.factors)
    assert "1 factors" in planned_cost(work, asked)[0][1]
    with pytest.raises(ConfigError, match="factors=ask"):
        Kar(factors="genre")
    assert Kar(domain="toys").words == chosen.words
