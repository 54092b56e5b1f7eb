"""Prompts: one text for training and inference, cut at the right end, undone by `normalise_answer`."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.data.catalogue import normalise_title
from recdistill.errors import ConfigError
from recdistill.teachers.language_model.prompts import (
    PROMPT_TEMPLATES,
    PromptTemplate,
    load_template,
    normalise_answer,
)

FILMS = PROMPT_TEMPLATES["films"]


def letters(text):
    return list(text)


def test_the_prompt_tells_task_and_titles_in_order():
    prompt = FILMS.prompt(["Alien", "Ran"])
    assert prompt.index("Recommend one new film") < prompt.index('"Alien", "Ran"') < prompt.index("Answer")
    assert prompt.endswith("\n")
    assert FILMS.completion("Ran") == '"Ran"'


def test_prompts_share_their_beginning():
    first, second = FILMS.prompt(["Alien"]), FILMS.prompt(["Ran", "Up"])
    shared = first[: first.index('"Alien"')]
    assert second.startswith(shared)
    assert "watched these films" in shared


@pytest.mark.parametrize("titles", [0, 1, 2, 3, 7, 60])
def test_the_oldest_titles_are_dropped(titles):
    history = [f"Film {k}" for k in range(titles)]
    for limit in range(len(FILMS.prompt([])) + 5, len(FILMS.prompt(history)) + 7, 11):
        reserve = 5
        fitting = [
            k for k in range(titles + 1) if len(FILMS.prompt(history[titles - k :])) + reserve <= limit
        ]
        assert FILMS.fit(history, letters, limit, reserve) == FILMS.prompt(history[titles - max(fitting) :])


def test_a_prompt_that_cannot_fit_is_refused():
    with pytest.raises(ConfigError, match="--max-tokens"):
        FILMS.fit(["Alien"], letters, 20, 5)


def test_a_title_with_braces_stays_as_it_is():
    assert FILMS.item("{0.__class__} {title}") == '"{0.__class__} {title}"'


def test_fields_change_the_fingerprint():
    other = PromptTemplate(**{**FILMS.__dict__, "separator": "; "})
    assert other.fingerprint != FILMS.fingerprint
    assert PromptTemplate(**FILMS.__dict__).fingerprint == FILMS.fingerprint


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("item_format", "no place"),
        ("item_format", "{title}{title}"),
        ("response_prefix", "Answer:"),
        ("header", 3),
    ],
)
def test_templates_that_cannot_work_are_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        PromptTemplate(**{**FILMS.__dict__, field: value})


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_own_templates_from_a_file(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    path.write_text(json.dumps({"header": "H ", "instruction": "I ", "history_prefix": "P "}))  # JSON is YAML
    assert load_template(path).prompt(["x"]) == 'H I P "x"\n\n### Answer:\n'


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"header": "H"}', "instruction, history_prefix"),
        ('{"header": "H", "instruktion": "I"}', "Did you mean 'instruction'"),
        ("[1]", "list"),
        ("{", "cannot be read"),
    ],
)
def test_errors_of_template_files(tmp_path, text, part):
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=part):
        load_template(path)


def test_an_unknown_domain_names_the_known():
    with pytest.raises(ConfigError, match="Did you mean 'films'"):
        load_template("film")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_template("missing.yaml")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ('"Toy Story"', "Toy Story"),
        (' “Toy  Story” \n\n### Task: "Up"', "Toy Story"),
        ("\n\nToy Story", "Toy Story"),
        ("&quot;Tom &amp; Jerry&quot;", "Tom & Jerry"),
        ("Cafe\u0301", "Café"),
        ('""', ""),
        ("", ""),
    ],
)
def test_answers_become_titles(text, title):
    assert normalise_answer(text) == title


@given(st.text(alphabet=st.sampled_from('ab "“”&;#1amp\n\té\u2028'), max_size=25))
def test_a_title_and_its_completion_have_one_form(raw):
    title = normalise_title(raw)
    form = normalise_answer(title)
    assert normalise_answer(form) == form
    assert normalise_answer(FILMS.completion(title)) == form
