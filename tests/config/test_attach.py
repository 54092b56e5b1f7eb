"""Knowledge in words on a student: off it is the plain student, on it acts, and it can be folded away."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from recdistill.config.attach import attach, chosen_steps, options_of
from recdistill.errors import ConfigError, KnowledgeError
from recdistill.export import Recommender, explain, fold
from recdistill.item_encoders import HybridExperts, Ids, KarItems, SlimText, TextTable
from recdistill.item_encoders.slim import TextBlock
from recdistill.knowledge import Words
from recdistill.losses import BCE, CE
from recdistill.students import STUDENTS, SequenceModel
from recdistill.teachers.rationales import Kar, Slim, Work, make_words
from recdistill.train import TrainOptions, distill
from recdistill.train.batches import BatchLoader
from says import Says, groups_of, rationale, told_titles
from shop import ITEMS, ring_dataset

SIZE, LENGTH = 16, 8
OPTIONS = {
    "sasrec": {"embedding_size": SIZE, "variant": "modern", "max_length": LENGTH, "dropout": 0.0},
    "gru4rec": {"embedding_size": SIZE, "variant": "paper"},
    "caser": {"embedding_size": SIZE, "variant": "paper", "max_length": LENGTH, "dropout": 0.0},
}
SMALL = {"kar": {"rank": 8, "inner": 16, "size": 8, "shared": 1, "specific": 2}, "slim-id": {"rank": 8}}
#: What reads texts of users; LLM-CF, whose rows read examples, has tests of its own.
NAMES = ["kar", "slim-agnostic", "slim-id"]


@pytest.fixture(scope="module")
def data():
    return ring_dataset(40, 12)


@pytest.fixture(scope="module")
def told(data, tmp_path_factory):
    """What a model that looks at the prompt wrote; nothing about items 0 to 4 and every seventh user."""

    def speak(prompt):
        if not told_titles(prompt):
            title = prompt.split('"')[1]
            return None if title in {f"Saga 0 part {k}" for k in range(5)} else f"{title} is a story"
        return None if len(groups_of(prompt)[1]) % 7 == 3 else rationale(prompt)

    folder = tmp_path_factory.mktemp("words")
    kar = make_words(Kar(cuts=(0.5, 1.0), most=9), Work(data, Says(speak), folder / "kar"))
    slim = make_words(Slim(), Work(data, Says(speak), folder / "slim"))
    return {"kar": kar, "slim-id": slim, "slim-agnostic": slim}


def plain(student="sasrec", *, tied=True, seed=1):
    torch.manual_seed(seed)
    network = STUDENTS[student](**OPTIONS[student])
    table = Ids(ITEMS, SIZE, std=0.5)
    output = table if tied else Ids(ITEMS, network.hidden_size, std=0.5)
    return SequenceModel(network, table, output, bias=not tied)


def made(name, data, told, student="sasrec", *, tied=True, cold=None, **options):
    torch.manual_seed(7)
    return attach(name, plain(student, tied=tied), told[name], data, cold, {**SMALL.get(name, {}), **options})


def windows(data, split="test"):
    rows = data.rows(split)
    return rows, torch.from_numpy(data.histories(rows, LENGTH)), torch.from_numpy(data.row_ids[rows])


def moved(model, seed=3):
    """Move every parameter off its start, as training does."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return model


@pytest.mark.parametrize("student", sorted(OPTIONS))
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["kar", "slim-id"])
def test_before_the_first_step_it_is_the_plain_student(data, told, name, student, tied):
    if student == "caser" and tied:
        pytest.skip("Caser writes another width than it reads")
    expected, found = plain(student, tied=tied).eval(), made(name, data, told, student, tied=tied).eval()
    _, history, ids = windows(data)
    assert (found.user_encoder.locate(ids) >= 0).any()
    torch.testing.assert_close(found.score(history, ids), expected.score(history), atol=1e-6, rtol=0)
    off = made(name, data, told, student, tied=tied, users=False, items=False).eval()
    assert torch.equal(off.score(history, ids), expected.score(history))


@pytest.mark.parametrize("name", NAMES)
def test_it_acts_and_learns(data, told, name):
    model = made(name, data, told)
    loader = BatchLoader(data, "last", LENGTH, 64)
    batch = next(loader.epoch(0))
    before = model(batch).logits.detach().clone()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):  # the experts behind a map that starts at zero learn from the second step on
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch).logits, batch.targets).backward()
        grads = {
            n: None if p.grad is None else float(p.grad.abs().sum()) for n, p in model.named_parameters()
        }
        optimizer.step()
    silent = [n for n, g in grads.items() if not g and "key" not in n]
    assert not [n for n in silent if "item_encoder" in n or "user_encoder" in n], silent
    assert not torch.allclose(model(batch).logits, before)
    known = model.user_encoder.locate(batch.row_ids) >= 0
    assert known.any()
    assert not known.all()
    with torch.no_grad():
        alone = SequenceModel(model.student, model.item_encoder, model.output_encoder, bias=False)
        difference = (model(batch).logits - alone(batch).logits).abs().amax(1)
    assert (difference[known] > 1e-6).all()
    assert (difference[~known] == 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tied", [True, False])
def test_items_formed_by_need_are_those_of_the_whole_table(data, told, monkeypatch, name, tied):
    batch = next(BatchLoader(data, "last", LENGTH, 16, seed=0, negatives=3).epoch(0))
    found = []
    for needed in (True, False):
        torch.manual_seed(2)
        model = attach(name, plain(tied=tied), told[name], data, None, SMALL.get(name, {}))
        for parameter in model.parameters():  # nothing is at its neutral start
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        monkeypatch.setattr(type(model.output_encoder), "formed_by_need", needed)
        output = model(batch)
        with torch.no_grad():
            output.scores(
                batch.targets.unsqueeze(1)
            )  # who asks first without gradient takes it from no other
        BCE()(output, batch).backward()
        found.append([output.scores(batch.negatives), *(p.grad for p in model.parameters())])
        assert ("item_table" in vars(output)) == (not needed)
        assert torch.equal(output.item_table, model.output_encoder(None))
        assert output.item_table.requires_grad
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_folded_and_saved_it_answers_alike_without_any_text(data, told, tmp_path, name, tied):
    model = moved(made(name, data, told, tied=tied)).eval()
    _, history, ids = windows(data)
    expected = model.score(history, ids)
    folded = fold(model)
    torch.testing.assert_close(folded.score(history, ids), expected, atol=1e-4, rtol=1e-4)
    assert folded.user_encoder.vectors.shape[1] == SIZE
    spec = {"student": "sasrec", "options": OPTIONS["sasrec"]}
    Recommender.from_model(model, data, spec, LENGTH).save(tmp_path / "r")
    loaded = Recommender.load(tmp_path / "r")
    torch.testing.assert_close(loaded.model.score(history, ids), expected, atol=1e-4, rtol=1e-4)
    names = {key for key in loaded.model.state_dict() if not key.startswith(("student.", "item_bias"))}
    allowed = {f"user_encoder.{n}" for n in ("row_ids", "places", "users", "newest", "vectors", "mixing")}
    assert names <= allowed | {"item_encoder.weight", "output_encoder.weight"}


def test_a_strange_or_missing_user_gives_what_the_history_gives(data, told):
    for name in NAMES:
        model = moved(made(name, data, told)).eval()
        _, history, ids = windows(data)
        unknown = model.user_encoder.locate(ids) < 0
        nothing = model.score(history, torch.full_like(ids, -1))
        assert torch.isfinite(nothing).all()
        assert torch.equal(nothing, model.score(history))
        assert torch.equal(model.score(history, ids)[unknown], nothing[unknown])


def test_a_side_that_nobody_was_asked_about_is_left_as_it_is(data, told):
    words = told["kar"]
    empty = {**words.arrays, "item_vectors": np.zeros_like(words["item_vectors"])}
    assert isinstance(made("kar", data, {"kar": Words("kar", empty)}).item_encoder, Ids)
    no_users = {
        name: np.array(words[name])[:0]
        for name in ("row_ids", "places", "users", "newest_event", "user_vectors")
    }
    assert made("kar", data, {"kar": Words("kar", {**words.arrays, **no_users})}).user_encoder is None


def test_the_adaptor_is_its_formula():
    torch.manual_seed(0)
    experts, x = HybridExperts(6, shared=2, specific=3, inner=5, size=4), torch.randn(7, 6)
    for tower in ("user", "item"):
        gates = experts.gates(x, tower)
        assert gates.shape == (7, 5)
        torch.testing.assert_close(gates.sum(1), torch.ones(7))
        expected = torch.zeros(7, 4)
        for row in range(7):
            scores = torch.exp(experts.gate[tower].weight @ x[row])
            for k in range(5):
                group, place = (experts.shared, k) if k < 2 else (experts.specific[tower], k - 2)
                inner = torch.relu(x[row] @ group.first[place] + group.first_bias[place])
                answer = torch.relu(inner @ group.second[place] + group.second_bias[place])
                expected[row] += scores[k] / scores.sum() * answer
        torch.testing.assert_close(experts(x, tower), expected)
    with pytest.raises(ConfigError, match="not possible"):
        HybridExperts(6, shared=0, specific=0)


def test_shared_experts_learn_from_both_towers_and_specific_ones_from_their_own():
    torch.manual_seed(0)
    x = torch.randn(9, 6)
    for tower, other in (("user", "item"), ("item", "user")):
        experts = HybridExperts(6, shared=1, specific=1, inner=8, size=4)
        experts(x, tower).sum().backward()
        assert experts.shared.first.grad.abs().sum() > 0
        assert experts.specific[tower].first.grad.abs().sum() > 0
        assert experts.specific[other].first.grad is None


def test_permuted_item_texts_move_the_item_side_alone(data, told):
    words = told["kar"]
    shuffled = np.array(words["item_vectors"])[np.random.default_rng(0).permutation(ITEMS)]
    other = Words("kar", {**words.arrays, "item_vectors": shuffled})
    one, two = (moved(made("kar", data, {"kar": w})).eval() for w in (words, other))
    users = [model.user_encoder.fold().vectors for model in (one, two)]
    torch.testing.assert_close(*users, atol=1e-6, rtol=1e-4)
    table, permuted = one.item_encoder.table(), two.item_encoder.table()
    assert not torch.allclose(table, permuted)
    missing = torch.from_numpy(~(words["item_vectors"] != 0).any(1))
    assert missing.sum() >= 5
    torch.testing.assert_close(table[missing], one.item_encoder.base.weight[missing])


def test_items_that_training_never_sees_are_formed_from_their_text_alone(data, told):
    cold = np.zeros(ITEMS, dtype=bool)
    cold[[0, 9, 20]] = True
    for name in ("kar", "slim-id"):
        model = moved(made(name, data, told, cold=cold)).eval()
        before = model.item_encoder.table()
        with torch.no_grad():
            model.item_encoder.base.weight[[0, 9, 20]] += 1.0
        torch.testing.assert_close(model.item_encoder.table(), before)
        assert before[9].abs().sum() > 0
        assert not any(side.cold_length_given for side in (model.item_encoder, model.output_encoder))
        table, warm = fold(model).item_encoder.table(), torch.from_numpy(~cold)
        torch.testing.assert_close(table[warm], before[warm])
        share = model.item_encoder.text_share()
        known = (share != 0).any(1)
        middle, text_middle = before[warm].mean(0), share[warm & known].mean(0)
        far = (before[warm] - middle).norm(dim=1).mean() / (share[warm & known] - text_middle).norm(
            dim=1
        ).mean()
        for item in np.flatnonzero(cold):
            wanted = middle + far * (share[item] - text_middle) if known[item] else before[item]
            torch.testing.assert_close(table[item], wanted)


def test_steps_are_read_apart_or_together_and_can_be_left_out(data, told):
    words = told["slim-id"]
    vectors = torch.from_numpy(np.array(words["user_vectors"]))
    assert torch.equal(chosen_steps(words, "apart", ("preferences", "items")), vectors[:, [0, 2]])
    assert torch.equal(
        chosen_steps(words, "together", ("preferences", "categories", "items")), vectors[:, 3:]
    )
    torch.testing.assert_close(
        chosen_steps(words, "together", ("categories", "items"))[:, 0], (vectors[:, 1] + vectors[:, 2]) / 2
    )
    for steps, use in (("both", ("items",)), ("apart", ()), ("apart", ("itms",))):
        with pytest.raises(ConfigError):
            chosen_steps(words, steps, use)
    _, history, ids = windows(data)
    scores = [
        moved(made("slim-id", data, told, steps=steps, use=use)).eval().score(history, ids)
        for steps, use in (
            ("apart", ("preferences",)),
            ("apart", ("items",)),
            ("together", ("preferences", "items")),
        )
    ]
    assert not torch.allclose(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])


FORMS = pytest.mark.parametrize("form", ["mlp", "transformer"])


@FORMS
def test_one_text_has_one_vector_on_both_sides_of_an_id_agnostic_student(data, told, form):
    words = told["slim-id"]
    arrays = {name: np.array(words[name]) for name in words.arrays}
    arrays["user_vectors"][0, :] = arrays["item_vectors"][11]
    model = moved(
        made("slim-agnostic", data, {"slim-agnostic": Words("slim", arrays)}, steps="together", form=form)
    ).eval()
    said = model.user_encoder.fold().vectors[0] / model.user_encoder.log_scale.exp()
    torch.testing.assert_close(said, model.output_encoder.table()[11], atol=1e-5, rtol=1e-5)


@FORMS
def test_a_catalogue_that_training_never_saw_is_ranked_by_its_texts(data, told, tmp_path, form):
    import polars as pl

    from recdistill.data import Catalogue
    from recdistill.teachers.rationales import item_texts, load_encoder

    model = moved(made("slim-agnostic", data, told, form=form)).eval()
    spec = {"student": "sasrec", "options": OPTIONS["sasrec"]}
    Recommender.from_model(model, data, spec, LENGTH).save(tmp_path / "r")
    known = Recommender.load(tmp_path / "r")
    encoder = load_encoder(told["slim-id"].folder / "encoder")
    # its own catalogue again: the same scores, so nothing in it belonged to the items
    own = known.over(data.catalogue, encoder.encode(item_texts(data.catalogue)), keep_users=True)
    _, history, ids = windows(data)
    torch.testing.assert_close(
        own.model.score(history, ids), known.model.score(history, ids), atol=1e-4, rtol=1e-4
    )
    frame = pl.DataFrame(
        {
            "item_id": ["n1", "n2", "n3", "n4"],
            "title": ["Saga 2 part 99", "Saga 4 again", "Saga 2 part 99", ""],
        }
    )
    new = Catalogue(frame)
    other = known.over(new, encoder.encode(item_texts(new)), keep_users=True)
    scores = other.scorer()(np.array([[0, 1]]))[0]
    assert torch.isfinite(scores[:3]).all()
    assert scores[3] == -torch.inf
    assert scores[0] == pytest.approx(float(scores[2]), abs=1e-6)
    assert abs(float(scores[0] - scores[1])) > 1e-4
    assert other.recommend([["n1"]], 4)["item_id"].to_list().count("n4") == 0
    user = int(known.model.user_encoder.users[0])
    with_user = other.recommend([["n1"]], 2, users=[str(user)])
    assert not with_user["score"].equals(other.recommend([["n1"]], 2)["score"])
    plain_one = Recommender.from_model(plain(), data, spec, LENGTH)
    with pytest.raises(ConfigError, match="none for others"):
        plain_one.over(new, encoder.encode(item_texts(new)))
    with pytest.raises(ConfigError, match="have the shape"):
        known.over(new, np.zeros((4, 3), dtype=np.float32))


def test_the_transformer_block_is_its_formula_and_steps_read_each_other(data, told):
    torch.manual_seed(0)
    block = TextBlock(6).double()
    texts, there = torch.randn(5, 3, 6, dtype=torch.float64), torch.rand(5, 3) < 0.7
    weights = dict(block.named_parameters())

    def norm(x, name):
        centred = x - x.mean()
        return (
            centred / (centred.square().mean() + 1e-5).sqrt() * weights[f"{name}.weight"]
            + weights[f"{name}.bias"]
        )

    def linear(x, name):
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    found = block(texts, there)
    for n in range(5):
        parts = [linear(norm(texts[n, p], "before_attention"), "projection").split(6) for p in range(3)]
        for p in range(3):
            read = [q for q in range(3) if there[n, q] or q == p]
            shares = torch.stack([parts[p][0] @ parts[q][1] / 6**0.5 for q in read]).softmax(0)
            mixed = sum(share * parts[q][2] for share, q in zip(shares, read, strict=True))
            y = texts[n, p] + linear(mixed, "output")
            inner = linear(norm(y, "before_inner"), "expand")
            inner = inner * (1 + torch.erf(inner / 2**0.5)) / 2
            torch.testing.assert_close(found[n, p], norm(y + linear(inner, "contract"), "last"))
    model = moved(made("slim-agnostic", data, told, form="transformer"))
    _, history, ids = windows(data)
    model.encode(history, (history >= 0).sum(1), row_ids=ids).square().sum().backward()
    attention = model.output_encoder.text_table.block.projection.weight.grad
    assert all(part.abs().max() > 1e-9 for part in attention.chunk(3))  # queries and keys too: steps are read
    kept = copy.deepcopy(model.output_encoder.text_table)
    again = TextTable.from_state(kept.state_dict())
    vectors = torch.from_numpy(np.array(told["slim-agnostic"]["item_vectors"]))
    assert torch.equal(again(vectors), kept(vectors))
    for wrong in ({"form": "linear"}, {"form": "transformer", "inner": 0}):
        with pytest.raises(ConfigError, match="transformer"):
            made("slim-agnostic", data, told, **wrong)


def category_shop(users=120, seed=0):
    """Each user buys at random within one saga, met once in his past and hidden in a history of noise."""
    import dataclasses

    data = ring_dataset(users, 8, seed=seed)
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(users), np.diff(data.offsets))
    saga = rng.integers(0, 5, users)[owners] * 8
    events = rng.integers(0, ITEMS, len(data.events))
    targets = np.concatenate([data.row_events[data.rows(s)] for s in ("train", "valid", "test")])
    events[targets] = (saga + rng.integers(0, 8, len(saga)))[targets]
    return dataclasses.replace(data, events=events), saga


def test_rationales_of_others_lose_what_ones_own_gain(tmp_path):
    """Spec 5.7 test 5: the rationale reveals the saga; the histories alone hardly do."""
    data, saga = category_shop()
    words = make_words(Slim(cuts=(0.2, 1.0)), Work(data, Says(rationale), tmp_path / "t"))
    arrays = {name: np.array(words[name]) for name in words.arrays}
    from recdistill.teachers.rationales import load_encoder

    encoder = load_encoder(tmp_path / "t" / "encoder")
    owned = [f"likes Saga {int(saga[event]) // 8}" for event in arrays["newest_event"]]
    arrays["user_vectors"] = np.repeat(encoder.encode(owned)[:, None], 4, axis=1)
    shuffled = {
        **arrays,
        "user_vectors": arrays["user_vectors"][np.random.default_rng(1).permutation(len(owned))],
    }
    spec = {"student": "gru4rec", "options": OPTIONS["gru4rec"]}
    options = TrainOptions(epochs=8, learning_rate=1e-2, patience=8)

    def run(name, given):
        torch.manual_seed(0)
        model = plain("gru4rec")
        if given is not None:
            model = attach(
                "slim-id", model, Words("slim", given), data, None, {"steps": "together", "rank": 8}
            )
        made = distill(
            data, model, CE(), out=tmp_path / name, spec=spec, options=options, length=LENGTH, batch_size=64
        )
        return made.evaluate(data, "test", filter_seen=False).metrics((10,))["ndcg@10"]

    own, others, without = run("own", arrays), run("others", shuffled), run("without", None)
    assert own > 1.15 * others
    assert own > 1.15 * without


def test_effects_are_what_the_student_says_without_an_item(data, told):
    model = moved(made("kar", data, told)).eval()
    recommender = Recommender.from_model(
        model, data, {"student": "sasrec", "options": OPTIONS["sasrec"]}, LENGTH
    )
    user = int(recommender.model.user_encoder.users[0])
    row = int(recommender.model.user_encoder.newest[0])
    history, items = [3, 9, 14], [20, 5]
    found = explain(
        recommender, [f"i{k:02d}" for k in history], [f"i{k:02d}" for k in items], user=str(user), most=9
    )

    def score(shown, row_id):
        return recommender.model.score(torch.tensor([shown]), torch.tensor([row_id]))[0]

    whole = score(history, row)
    for item in items:
        mine = found.filter(found["item_id"] == f"i{item:02d}")
        expected = {
            f"i{j:02d}": float((whole - score([k for k in history if k != j], row))[item]) for j in history
        }
        expected[""] = float((whole - score(history, -1))[item])
        assert dict(zip(mine["because"], mine["effect"], strict=True)) == pytest.approx(expected, abs=1e-5)
        sizes = mine["effect"].abs().to_list()
        assert sizes == sorted(sizes, reverse=True)
    assert explain(recommender, ["i03"], ["i20"]).height == 0
    assert explain(recommender, ["i03", "i04", "i05"], ["i20"], most=2).height == 2


def test_wrong_words_and_options_are_refused(data, told):
    with pytest.raises(KnowledgeError, match="recdistill rationales kar"):
        attach("kar", plain(), None, data, None, {})
    with pytest.raises(KnowledgeError, match="these are of 'slim'"):
        attach("kar", plain(), told["slim-id"], data, None, {})
    with pytest.raises(ConfigError, match="Did you mean 'specific'"):
        attach("kar", plain(), told["kar"], data, None, {"specifc": 3})
    with pytest.raises(ConfigError, match="strategy of knowledge in words"):
        attach("kr", plain(), told["kar"], data, None, {})
    assert {"shared", "specific", "gate", "users"} <= set(options_of("kar"))
    assert isinstance(made("kar", data, told).item_encoder, KarItems)
    assert isinstance(made("slim-agnostic", data, told).item_encoder, SlimText)
    assert copy.deepcopy(made("slim-id", data, told)).user_encoder is not None
