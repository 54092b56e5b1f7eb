"""The loss at supervised positions against all logits, and the training loop."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

from recdistill.errors import ConfigError, RunError, TrainingError
from recdistill.teachers.language_model import token_loss
from recdistill.teachers.language_model.token_loss import TokenBatch, TokenLoss, padded_batch
from recdistill.teachers.language_model.token_training import STATE, LoopOptions, rate, train_tokens
from recdistill.types import PAD
from tiny_lm import tiny_lm

LINES, FIRST = [[1, 9, 8, 7, 2], [1, 5, 2], [4, 4, 6, 3, 3, 8, 2]], [3, 1, 5]


def naive_loss(model, lines, first):
    """Each line alone, every log-probability by itself."""
    total = 0.0
    for line, start in zip(lines, first, strict=True):
        log_p = log_softmax(model(input_ids=torch.tensor([line])).logits[0].float(), -1)
        total -= sum(log_p[t - 1, line[t]].item() for t in range(start, len(line)))
    return total


def gemma():
    """A model whose logits are capped: more than a matrix product."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=0.5,
        initializer_range=0.5,
    )
    return Gemma2ForCausalLM(config).eval()


@pytest.mark.parametrize("make", [lambda: tiny_lm().model, lambda: tiny_lm("gpt2").model, gemma])
def test_the_loss_is_that_of_all_logits(make):
    model = make()
    found = TokenLoss(model)(padded_batch(LINES, FIRST, 0))
    assert found.item() == pytest.approx(naive_loss(model, LINES, FIRST), rel=1e-5)


def test_the_head_is_used_apart_only_where_it_is_a_product():
    assert TokenLoss(tiny_lm().model).head is not None
    assert TokenLoss(gemma()).head is None


def test_chunks_give_the_same_loss_and_gradient(monkeypatch):
    model = tiny_lm().model
    batch = padded_batch(LINES, FIRST, 0)
    whole = torch.autograd.grad(TokenLoss(model)(batch), list(model.parameters()), allow_unused=True)
    monkeypatch.setattr(token_loss, "_LOGITS", 2 * model.config.vocab_size)
    parts = torch.autograd.grad(TokenLoss(model)(batch), list(model.parameters()), allow_unused=True)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)


def test_labels_are_the_tokens_that_follow():
    batch = padded_batch(LINES, FIRST, pad_id=0)
    assert batch.labels[0].tolist() == [PAD, PAD, 7, 2, PAD, PAD]
    assert batch.tokens[1].tolist() == [1, 5, 0, 0, 0, 0]
    assert batch.labels[1].tolist() == [5, 2, PAD, PAD, PAD, PAD]
    assert batch.supervised == 2 + 2 + 2


def test_the_rate_rises_then_falls():
    line = LoopOptions(epochs=1, learning_rate=1, warmup_steps=4, decay="linear")
    found = [rate(step, 12, line) for step in range(12)]
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[5:] == pytest.approx([1 - k / 8 for k in range(1, 8)])
    curve = LoopOptions(epochs=1, learning_rate=1, decay="cosine")
    assert rate(5, 10, curve) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2)
    assert rate(0, 1, LoopOptions(epochs=1, learning_rate=1, warmup_steps=20)) == 1


class Lines:
    """Each example is one line; two examples a step, in micro-batches of one."""

    def plan(self, epoch):
        order = np.random.default_rng(epoch).permutation(4)
        return [[order[:1], order[1:2]], [order[2:3], order[3:]]]

    def batch(self, epoch, examples):
        lines = [[1, 3 + int(k), 7, 7 + int(k), 2, *[9] * (5 * int(k))] for k in examples]  # of many lengths
        return padded_batch(lines, [2] * len(lines), 0)


def loop(**change):
    return LoopOptions(**{"epochs": 4, "learning_rate": 1e-2, "save_steps": 3, **change})


def test_micro_batches_make_the_gradient_of_the_whole_step(tmp_path):
    class Whole(Lines):
        def plan(self, epoch):
            return [[np.concatenate(parts)] for parts in super().plan(epoch)]

    losses = []
    for name, data in (("parts", Lines()), ("whole", Whole())):
        (tmp_path / name).mkdir()
        heard = []
        train_tokens(
            tiny_lm(seed=1).model,
            data,
            [],
            loop(learning_rate=1e-3),
            tmp_path / name,
            on_step=lambda done, total, loss, heard=heard: heard.append(loss),
        )
        losses.append(heard)
    assert len(losses[0]) == 8
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert sum(losses[0][-2:]) < sum(losses[0][:2])


def test_the_best_parameters_are_kept_and_patience_ends(tmp_path):
    model = tiny_lm(seed=2).model
    # what is learned makes the watched line less likely: the first evaluation is the best one
    watched = [padded_batch([[1, 3, 7, 30, 31, 2]], [2], 0)]
    done = train_tokens(model, Lines(), watched, loop(epochs=20, patience=3), tmp_path)
    losses = [record["valid"] for record in done.history]
    assert done.best_loss == min(losses)
    assert done.step < 40
    assert len(losses) == losses.index(min(losses)) + 1 + 3
    now = float(TokenLoss(model)(watched[0])) / watched[0].supervised
    assert now == pytest.approx(done.best_loss, rel=1e-5)
    assert not model.training


def test_evaluations_fall_where_they_are_due(tmp_path):
    done = train_tokens(tiny_lm().model, Lines(), [], loop(epochs=1.5, evaluations=2), tmp_path)
    assert [record["step"] for record in done.history] == [1, 2, 3]


def test_a_loss_that_is_not_finite_stops(tmp_path):
    model = tiny_lm().model
    with torch.no_grad():
        next(iter(model.parameters()))[7] = torch.nan
    with pytest.raises(TrainingError, match="learning rate"):
        train_tokens(model, Lines(), [], loop(), tmp_path)


def test_a_damaged_state_is_refused(tmp_path):
    train_tokens(tiny_lm().model, Lines(), [], loop(), tmp_path)
    (tmp_path / STATE).write_bytes(b"\x00" * 40)
    with pytest.raises(RunError, match="delete the folder"):
        train_tokens(tiny_lm().model, Lines(), [], loop(), tmp_path)


def test_the_users_generator_is_left_alone(tmp_path):
    before = torch.get_rng_state()
    train_tokens(tiny_lm().model, Lines(), [], loop(epochs=1), tmp_path)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "change", [{"precision": "int8"}, {"decay": "square"}, {"epochs": 0}, {"patience": -1}]
)
def test_options_out_of_range_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        loop(**change)


def test_a_batch_counts_what_is_learned():
    assert TokenBatch(torch.zeros(1, 3), torch.tensor([[PAD, 4, PAD]])).supervised == 1
