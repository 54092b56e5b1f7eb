"""Searches against naive references and against the library's own search."""

import pytest
import torch

from recdistill.errors import ConfigError
from recdistill.teachers.generation import beam_cache
from recdistill.teachers.generation.beam_cache import CausalScorer
from recdistill.teachers.generation.beam_search import free_beam
from recdistill.teachers.generation.decoding import DecodeOptions, greedy
from recdistill.teachers.generation.title_search import constrained_beam
from recdistill.teachers.generation.trie import TitleTrie
from references.decoding import beam_of_titles, next_log_probs, title_score
from tiny_lm import TITLES, tiny_lm

EOS = 2
HISTORIES = [
    "watched: Ran, Up\n",
    "watched: Alien\n",
    "watched: The Sea, Zodiac, Star Trek, Rango, Amélie\n",
    "x\n",
]


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def prompts(lm):
    return lm.encode_all(HISTORIES)


@pytest.fixture(scope="module")
def titles(lm):
    return [(*tokens, EOS) for tokens in lm.encode_answers(TITLES)]


@pytest.fixture(scope="module")
def trie(titles):
    return TitleTrie.from_sequences(titles, EOS)


def walk(trie, tokens):
    """Follow tokens from the root by looking at all children; None where a token is not allowed."""
    node = 0
    for token in tokens:
        places = range(int(trie.child_start[node]), int(trie.child_start[node + 1]))
        node = next((n for n in places if int(trie.token[n]) == token), None)
        if node is None:
            return None
    return node


def test_trie_allows_exactly_the_titles(trie, titles):
    for index, tokens in enumerate(titles):
        node = walk(trie, tokens)
        assert trie.title[trie.first[node]] == index
        assert trie.depth[node] == len(tokens)
        assert bool(trie.single(torch.tensor(node)))
        for length in range(len(tokens)):
            node = walk(trie, tokens[:length])
            start, stop = int(trie.child_start[node]), int(trie.child_start[node + 1])
            expected = {t[length] for t in titles if t[:length] == tokens[:length]}
            assert sorted(trie.token[start:stop].tolist()) == sorted(expected)
            below = trie.title[int(trie.first[node]) : int(trie.last[node])].tolist()
            assert sorted(below) == [i for i, t in enumerate(titles) if t[:length] == tokens[:length]]
    leaves = (trie.child_start[1:] == trie.child_start[:-1]).sum()
    assert leaves == len(trie) == len(titles)
    assert trie.longest == max(map(len, titles))


def test_trie_merges_equal_titles_and_keeps_prefixes_apart():
    trie = TitleTrie.from_sequences([[5, 6], [5], [5, 6], [7, 2]], 2)
    assert len(trie) == 3
    assert trie.leaf_of.tolist()[0] == trie.leaf_of.tolist()[2]
    assert sorted(trie.title.tolist()) == [0, 1, 3]
    assert sorted(trie.token[1:3].tolist()) == [5, 7]
    five = walk(trie, [5])
    assert set(trie.token[int(trie.child_start[five]) : int(trie.child_start[five + 1])].tolist()) == {2, 6}


@pytest.mark.parametrize("sequences", [[], [[]], [[3, 2, 4]], [[2]]])
def test_trie_refuses_what_is_no_title(sequences):
    with pytest.raises(ConfigError, match="title"):
        TitleTrie.from_sequences(sequences, 2)


@pytest.mark.parametrize("renormalise", [True, False])
def test_wide_constrained_beam_is_exhaustive_scoring(lm, prompts, titles, trie, renormalise):
    options = DecodeOptions("constrained", beams=len(titles), renormalise=renormalise)
    found = constrained_beam(CausalScorer(lm.model, 0), prompts[:2], options, trie)
    for row, prompt in enumerate(prompts[:2]):
        exact = [title_score(lm.model, prompt, t, titles, renormalise=renormalise) for t in titles]
        order = sorted(range(len(titles)), key=lambda i: -exact[i])
        assert [tokens[0] for tokens in found.tokens[row]] == order
        assert found.scores[row] == pytest.approx([exact[i] for i in order], abs=1e-4)
        assert found.counts[row] == [len(titles[i]) for i in order]
        if renormalise:  # shares of shares of the whole add up to it
            assert sum(
                map(torch.tensor(found.scores[row]).exp().tolist().__getitem__, range(len(order)))
            ) == (pytest.approx(1, abs=1e-5))


@pytest.mark.parametrize("width", [1, 2, 5])
def test_constrained_beam_keeps_the_best_prefixes(lm, prompts, titles, trie, width):
    found = constrained_beam(
        CausalScorer(lm.model, 0), prompts, DecodeOptions("constrained", beams=width), trie
    )
    for row, prompt in enumerate(prompts):
        expected = beam_of_titles(lm.model, prompt, set(titles), width)
        assert [titles[tokens[0]] for tokens in found.tokens[row]] == [tokens for tokens, _ in expected]
        assert found.scores[row] == pytest.approx([score for _, score in expected], abs=1e-4)
        assert len({tokens[0] for tokens in found.tokens[row]}) == width
        assert found.scores[row] == sorted(found.scores[row], reverse=True)


def test_more_beams_than_titles_gives_every_title_once(lm, prompts, trie, titles):
    found = constrained_beam(CausalScorer(lm.model, 0), prompts, DecodeOptions("constrained", beams=50), trie)
    assert all(sorted(t[0] for t in row) == list(range(len(titles))) for row in found.tokens)
    one = TitleTrie.from_sequences([titles[3]], EOS)
    alone = constrained_beam(CausalScorer(lm.model, 0), prompts, DecodeOptions("constrained"), one)
    assert alone.tokens == [[[0]]] * len(prompts)


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.8])
def test_mixing_is_the_sum_of_d3(lm, prompts, titles, trie, weight, renormalise):
    generator = torch.Generator().manual_seed(3)
    items = (
        torch.randn(2, len(titles) + 2, generator=generator).mul(3).log_softmax(1)
    )  # the last: no title, an equal
    leaf_of_item = torch.cat([trie.leaf_of, torch.tensor([-1]), trie.leaf_of[4:5]])
    sums = trie.leaf_masses(items, leaf_of_item)
    options = DecodeOptions("constrained", beams=len(titles), renormalise=renormalise, lm_weight=weight)
    found = constrained_beam(CausalScorer(lm.model, 0), prompts[:2], options, trie, sums)
    for row in range(2):
        masses = {title: items[row, i].exp().item() for i, title in enumerate(titles)}
        masses[titles[4]] += items[row, -1].exp().item()
        exact = [
            title_score(
                lm.model, prompts[row], t, titles, weight=weight, masses=masses, renormalise=renormalise
            )
            for t in titles
        ]
        order = sorted(range(len(titles)), key=lambda i: -exact[i])
        assert [tokens[0] for tokens in found.tokens[row]] == order
        assert found.scores[row] == pytest.approx([exact[i] for i in order], abs=2e-4)


def test_greedy_takes_the_likeliest_token(lm, prompts):
    options = DecodeOptions("greedy", max_new_tokens=7)
    found = greedy(CausalScorer(lm.model, 0), prompts, options, [EOS, 40])
    for row, prompt in enumerate(prompts):
        tokens, score = [], 0.0
        while len(tokens) < 7 and (not tokens or tokens[-1] not in (EOS, 40)):
            log_probs = next_log_probs(lm.model, [*prompt, *tokens])
            tokens.append(int(log_probs.argmax()))
            score += log_probs.max().item()
        text = tokens[:-1] if tokens[-1] in (EOS, 40) else tokens
        assert found.tokens[row] == [text]
        assert found.scores[row] == pytest.approx([score], abs=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_free_beam_is_the_beam_of_the_library(kind, penalty):
    lm = tiny_lm(kind, seed=2)
    prompts, scorer = lm.encode_all(HISTORIES), CausalScorer(lm.model, 0)
    options = DecodeOptions("beam", max_new_tokens=9, length_penalty=penalty)
    endless = free_beam(scorer, prompts, options, [EOS]).tokens
    # more end tokens, taken from what would be written: beams end early, late and never
    ends = list(dict.fromkeys([EOS, endless[0][1][2], endless[1][0][5], endless[2][3][8]]))
    found = free_beam(scorer, prompts, options, ends)
    ended = 0
    for row, prompt in enumerate(prompts):
        theirs = lm.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            num_beams=4,
            num_return_sequences=4,
            max_new_tokens=9,
            length_penalty=penalty,
            do_sample=False,
            eos_token_id=ends,
            return_dict_in_generate=True,
            output_scores=True,
        )
        texts = [ids[len(prompt) :].tolist() for ids in theirs.sequences]
        texts = [ids[: next((i for i, t in enumerate(ids) if t in ends), 9)] for ids in texts]
        ended += sum(len(ids) < 9 for ids in texts)
        assert found.tokens[row] == texts
        assert found.scores[row] == pytest.approx(theirs.sequences_scores.tolist(), abs=1e-4)
    assert 1 <= ended < 4 * len(prompts)


@pytest.mark.parametrize("mode", ["greedy", "beam", "constrained"])
def test_answers_do_not_depend_on_the_batch_nor_on_the_cache(lm, prompts, trie, mode):
    options = DecodeOptions(mode, beams=3, max_new_tokens=8)

    def search(scorer, some):
        if mode == "constrained":
            return constrained_beam(scorer, some, options, trie)
        return (greedy if mode == "greedy" else free_beam)(scorer, some, options, [EOS])

    tree, reorder = (CausalScorer(lm.model, 0, cache=kind) for kind in ("tree", "reorder"))
    together = search(tree, prompts)
    others = [search(tree, [prompt]) for prompt in prompts]
    turned = search(reorder, prompts[::-1])
    for row in range(len(prompts)):
        for other, at in ((others[row], 0), (turned, len(prompts) - 1 - row)):
            assert other.tokens[at] == together.tokens[row]
            assert other.scores[at] == pytest.approx(together.scores[row], abs=1e-4)


@pytest.mark.parametrize("kind", ["tree", "reorder"])
def test_prompts_that_are_fed_in_groups_of_like_length_are_one_batch(lm, monkeypatch, kind):
    generator = torch.Generator().manual_seed(1)
    lengths = [40, 3, 17, 16, 41, 4, 9]
    tokens = torch.randint(3, 300, (len(lengths), 50), generator=generator).tolist()
    prompts = [[1, 5, 6, *row[:length]] for row, length in zip(tokens, lengths, strict=True)]
    shapes, forward = [], CausalScorer.forward

    def noted(self, tokens, *args):
        shapes.append(tuple(tokens.shape))
        return forward(self, tokens, *args)

    scorer = CausalScorer(lm.model, 0, cache=kind)
    monkeypatch.setattr(CausalScorer, "forward", noted)
    monkeypatch.setitem(beam_cache._ENOUGH, "cpu", 1)
    found = free_beam(scorer, prompts, DecodeOptions("beam", beams=3, max_new_tokens=5), [EOS])
    assert shapes[:6] == [(1, 3), (2, 41), (2, 17), (1, 9), (1, 4), (1, 3)]
    alone = [free_beam(scorer, [p], DecodeOptions("beam", beams=3, max_new_tokens=5), [EOS]) for p in prompts]
    assert found.tokens == [one.tokens[0] for one in alone]
    for row, one in enumerate(alone):
        assert found.scores[row] == pytest.approx(one.scores[0], abs=1e-4)


def test_tree_is_used_where_the_model_allows_it():
    assert CausalScorer(tiny_lm().model, 0).cache == "tree"
    assert CausalScorer(tiny_lm(attention="eager").model, 0).cache == "tree"
    assert CausalScorer(tiny_lm("gpt2").model, 0).cache == "tree"
    assert CausalScorer(tiny_lm("mistral").model, 0).cache == "reorder"


def test_a_model_that_ignores_the_mask_is_found_out(lm, monkeypatch):
    forward = CausalScorer.forward

    def deaf(self, tokens, positions, mask, memory):
        return forward(self, tokens, positions, torch.zeros_like(mask) if mask.ndim == 4 else mask, memory)

    monkeypatch.setattr(CausalScorer, "forward", deaf)
    assert CausalScorer(lm.model, 0).cache == "reorder"


def test_a_head_that_is_more_than_a_product_is_not_taken_apart(lm, prompts, trie, monkeypatch):
    expected = constrained_beam(CausalScorer(lm.model, 0), prompts, DecodeOptions("constrained"), trie)
    assert CausalScorer(lm.model, 0).head is not None
    forward = type(lm.model).forward

    def scaled(self, *args, **kwargs):
        found = forward(self, *args, **kwargs)
        found.logits = found.logits * 0.5
        return found

    monkeypatch.setattr(type(lm.model), "forward", scaled)
    scorer = CausalScorer(lm.model, 0)
    assert scorer.head is None
    assert scorer.cache == "tree"
    found = constrained_beam(scorer, prompts, DecodeOptions("constrained"), trie)
    assert max(abs(a - b) for a, b in zip(found.scores[0], expected.scores[0], strict=True)) > 0.05
    with torch.no_grad():
        lm.model.get_output_embeddings().weight *= 2
    try:
        again = constrained_beam(CausalScorer(lm.model, 0), prompts, DecodeOptions("constrained"), trie)
    finally:
        with torch.no_grad():
            lm.model.get_output_embeddings().weight /= 2
    assert again.tokens == expected.tokens
    assert again.scores[1] == pytest.approx(expected.scores[1], abs=1e-5)


def test_what_all_prompts_share_is_fed_once(lm, prompts, monkeypatch):
    shapes, forward = [], CausalScorer.forward

    def noted(self, tokens, *args):
        shapes.append(tuple(tokens.shape))
        return forward(self, tokens, *args)

    scorer = CausalScorer(lm.model, 0)
    monkeypatch.setattr(CausalScorer, "forward", noted)
    scorer.start([[1, 5, 6, 7, 8], [1, 5, 6, 9], [1, 5, 6, 7]])
    assert shapes == [(1, 3), (3, 2)]
    shapes.clear()
    scorer.start([[1, 5, 6], [1, 5, 6]])  # the last token must be fed a row
    assert shapes == [(1, 2), (2, 1)]
    with pytest.raises(ConfigError, match="no token"):
        scorer.start([[1], []])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "beams"}, "Did you mean 'beam'"),
        ({"beams": 0}, "beams=0"),
        ({"mode": "constrained", "lm_weight": 1.5}, "lm_weight=1.5"),
        ({"mode": "constrained", "length_penalty": 1.0}, "length_penalty is 1.0"),
        ({"mode": "beam", "lm_weight": 0.5}, "constrained"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(ConfigError, match=said):
        DecodeOptions(**options)


def test_defaults_are_those_of_the_papers():
    assert DecodeOptions().length_penalty == 1.0
    assert (DecodeOptions().beams, DecodeOptions().max_new_tokens) == (4, 128)
    assert DecodeOptions("constrained").length_penalty == 0.0
    assert DecodeOptions("greedy").beams == 1


def test_a_weight_without_a_student_is_refused(lm, prompts, trie):
    with pytest.raises(ConfigError, match="no student"):
        constrained_beam(
            CausalScorer(lm.model, 0), prompts, DecodeOptions("constrained", lm_weight=0.5), trie
        )
