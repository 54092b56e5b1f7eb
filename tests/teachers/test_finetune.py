"""Fine-tuning: the bytes of generation, only the answer learned, something learned, and a kill that changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recdistill.errors import ConfigError, DataError, RunError, TrainingError
from recdistill.runs import read_manifest
from recdistill.teachers.finetuning.data import (
    prompt_examples,
    reserved_tokens,
    rows_with_titles,
    sample_rows,
)
from recdistill.teachers.finetuning.finetune import finetune, in_sft_sample
from recdistill.teachers.finetuning.model import first_log_probabilities, prove_change
from recdistill.teachers.finetuning.options import PRESETS, FinetuneOptions, chosen_method, chosen_rate
from recdistill.teachers.folds import fold_of_row
from recdistill.teachers.language_model.loading import load_language_model
from recdistill.teachers.language_model.prompts import PromptTemplate
from recdistill.teachers.language_model.small import SmallLmOptions, train_small_lm
from recdistill.types import PAD
from shop import ring_dataset
from teachers.conftest import build_dataset
from tiny_lm import tiny_lm

SHORT = PromptTemplate(header="Task: ", instruction="next. ", history_prefix="Seen: ")
OPTIONS = FinetuneOptions(
    method="lora",
    rank=4,
    alpha=16,
    dropout=0.1,
    samples=48,
    last_items=3,
    epochs=3,
    patience=0,
    learning_rate=2e-2,
    warmup_steps=2,
    batch_size=16,
    batch_tokens=600,
    valid_rows=24,
    precision="float32",
)


class KilledError(Exception):
    pass


def killer(step):
    def hear(done, total, loss):
        if done == step:
            raise KilledError

    return hear


@pytest.fixture(scope="module")
def ring():
    return ring_dataset()


@pytest.fixture(scope="module")
def base(ring, tmp_path_factory):
    """A folder with a model that has seen the titles for a few steps."""
    out = tmp_path_factory.mktemp("base") / "lm"
    shape = SmallLmOptions(
        hidden_size=16,
        layers=1,
        heads=2,
        vocabulary=360,
        context=128,
        steps=8,
        batch_tokens=512,
        learning_rate=1e-2,
    )
    train_small_lm(ring, out, shape)
    return out


@pytest.fixture(scope="module")
def lora(base, ring, tmp_path_factory):
    out = tmp_path_factory.mktemp("lora") / "adapter"
    return finetune(load_language_model(base), ring, ring.rows("train"), SHORT, OPTIONS, out)


def examples(lm, data, rows, **change):
    options = {
        "last_items": 10,
        "max_tokens": 256,
        "loss_on_prompt": False,
        "batch_size": 8,
        "batch_tokens": 512,
    }
    return prompt_examples(lm, data, rows, SHORT, **{**options, "seed": 0, **change})


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# --- what is learned ---------------------------------------------------------------------------------------------


def test_training_reads_what_generation_asks(base, ring):
    lm = load_language_model(base)
    rows = ring.rows("train")[:30]
    titles = ring.catalogue.titles
    found = examples(lm, ring, rows, last_items=5)
    for place, row in enumerate(rows):
        history = [titles[i] for i in ring.histories(np.array([row]), 5)[0] if i >= 0]
        reserve = reserved_tokens(lm, SHORT, titles)
        prompt = SHORT.fit(history, lm.encode, 256, reserve)
        assert found.prompt(place) == lm.encode(prompt)
        # the prompt's tokens begin those of prompt and answer: no token spans the border
        title = titles[ring.targets(np.array([row]))[0]]
        line = found.tokens[found.offsets[place] : found.offsets[place + 1]].tolist()
        assert line == [*lm.encode(prompt + SHORT.completion(title)), lm.eos_id]


@pytest.mark.parametrize("loss_on_prompt", [False, True])
def test_labels_are_the_quoted_title_and_its_end(base, ring, loss_on_prompt):
    lm = load_language_model(base)
    rows = ring.rows("train")[:20]
    found = examples(lm, ring, rows, loss_on_prompt=loss_on_prompt)
    for place, row in enumerate(rows):
        batch = found.batch(0, np.array([place]))
        learned = batch.labels[0][batch.labels[0] != PAD].tolist()
        title = ring.catalogue.titles[ring.targets(np.array([row]))[0]]
        assert learned[-1] == lm.eos_id
        if loss_on_prompt:
            assert learned == found.tokens[found.offsets[place] + 1 : found.offsets[place + 1]].tolist()
        else:
            assert lm.tokenizer.decode(learned) == f'"{title}"</s>'
    both = found.batch(0, np.arange(20))
    assert both.supervised == sum(found.batch(0, np.array([k])).supervised for k in range(20))


def test_the_answer_survives_a_history_of_two_hundred():
    lm = tiny_lm(extra=("Saga part",))
    data = build_dataset([[*range(200), 200, 201, 202]], titles=[f"Film {k} of many" for k in range(203)])
    rows = data.rows("train")[-3:]
    found = examples(lm, data, rows, last_items=200, max_tokens=96)
    for place, row in enumerate(rows):
        line = found.tokens[found.offsets[place] : found.offsets[place + 1]].tolist()
        assert len(line) <= 96
        text = lm.tokenizer.decode(line)
        target = int(data.targets(np.array([row]))[0])
        assert text.endswith(f'### Answer:\n"Film {target} of many"</s>')
        assert f'"Film {target - 1} of many"\n\n###' in text  # the newest title is kept
        assert '"Film 0 of many"' not in text
        assert text.startswith("<s>" * bool(lm.start_ids) + "Task: next. Seen: ")


def test_rows_without_titles_are_left_out():
    data = build_dataset([[0, 1, 2, 3, 4, 0]], titles=["", "B", "", "D", "E"])
    # targets 1, 2, 3 are train; 1 has no title in its history, 2 has none itself
    rows = data.rows("train")
    assert data.targets(rows_with_titles(data, rows, 10)).tolist() == [3]
    assert data.targets(rows_with_titles(data, rows, 1)).tolist() == []


def test_steps_hold_every_row_once_and_fit_the_budget(base, ring):
    found = examples(load_language_model(base), ring, ring.rows("train"), batch_size=16, batch_tokens=300)
    longest = int(np.diff(found.offsets).max())
    plans = [found.plan(epoch) for epoch in range(2)]
    for steps in plans:
        assert sorted(np.concatenate([part for step in steps for part in step])) == list(range(len(found)))
        assert [sum(map(len, step)) for step in steps[:-1]] == [16] * (len(steps) - 1)
        assert max(found.batch(0, part).tokens.numel() for step in steps for part in step) <= max(
            300, longest
        )
    assert plans[0][0][0].tolist() != plans[1][0][0].tolist()


# --- what comes out ----------------------------------------------------------------------------------------------


def test_the_adapter_on_disk_is_not_empty_and_changes_answers(lora, base, ring):
    from safetensors.torch import load_file

    tensors = load_file(lora / "adapter_model.safetensors")
    matrices = [value for name, value in tensors.items() if ".lora_B." in name]
    manifest = read_manifest(lora, "adapter")
    assert len(matrices) == manifest["changed_matrices"] == 7  # q, k, v, o, gate, up, down of one layer
    assert all(bool(value.any()) for value in matrices)
    plain = load_language_model(base)
    tuned, again = (load_language_model(base, adapter=lora) for _ in range(2))
    prompts = [plain.encode(SHORT.prompt(["Saga 1 part 2"]))]
    before, after, once_more = (first_log_probabilities(lm.model, prompts) for lm in (plain, tuned, again))
    assert torch.equal(after, once_more)
    assert float((after - before).abs().max()) > 0.01
    assert manifest["first_token_change"] > 0.01
    assert len({plain.fingerprint, tuned.fingerprint}) == 2
    assert tuned.fingerprint == again.fingerprint
    assert tuned.name == "lm + adapter"


def test_the_kept_adapter_is_the_best_on_validation_rows(lora, base, ring):
    manifest = read_manifest(lora, "adapter")
    tuned = load_language_model(base, adapter=lora)
    rows = sample_rows(rows_with_titles(ring, ring.rows("valid"), 3), 24, 0)
    found = examples(tuned, ring, rows, last_items=3, max_tokens=128)
    from recdistill.teachers.language_model.token_training import Placed

    assert Placed(tuned.model, "float32").mean(found.all_batches()) == pytest.approx(
        manifest["valid_loss"], rel=1e-4
    )
    assert manifest["valid_loss"] == min(record["valid"] for record in manifest["history"])
    assert manifest["valid_loss"] < manifest["valid_loss_before"]


def test_the_base_model_stays_as_it_is(base, ring, tmp_path):
    for method in ("lora", "full"):
        lm = load_language_model(base)
        before = {name: value.clone() for name, value in lm.model.named_parameters()}
        flags = {name: value.requires_grad for name, value in lm.model.named_parameters()}
        options = replace(OPTIONS, method=method, epochs=1)
        with pytest.raises(KilledError):
            finetune(lm, ring, ring.rows("train"), SHORT, options, tmp_path / method, on_step=killer(2))
        finetune(lm, ring, ring.rows("train"), SHORT, options, tmp_path / method)
        after = dict(lm.model.named_parameters())
        assert list(after) == list(before)
        assert all(torch.equal(value, before[name]) for name, value in after.items())
        assert flags == {name: value.requires_grad for name, value in after.items()}
        assert not lm.model.training


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_killed_training_ends_with_the_same_files(base, ring, tmp_path, method, lora):
    rows, options = ring.rows("train"), replace(OPTIONS, method=method)
    whole = lora
    if method == "full":
        whole = finetune(load_language_model(base), ring, rows, SHORT, options, tmp_path / "whole")
    out = tmp_path / "adapter"
    for step in (1, 4, 8):
        with pytest.raises(KilledError):
            finetune(load_language_model(base), ring, rows, SHORT, options, out, on_step=killer(step))
        assert not out.exists()
    taken = []
    finetune(
        load_language_model(base),
        ring,
        rows,
        SHORT,
        options,
        out,
        on_step=lambda done, *_: taken.append(done),
    )
    assert len(taken) < 9
    assert files(out) == files(whole)
    assert not out.with_name("adapter.training").exists()


def test_a_finished_training_is_not_done_again(lora, base, ring):
    lm = load_language_model(base)
    before = files(lora)
    assert finetune(lm, ring, ring.rows("train"), SHORT, OPTIONS, lora, on_step=killer(1)) == lora
    assert files(lora) == before
    with pytest.raises(RunError, match="other settings"):
        finetune(lm, ring, ring.rows("train"), SHORT, replace(OPTIONS, rank=2), lora)


def test_answers_on_a_ring_are_learned(base, ring, tmp_path):
    """Item i is followed by i + 1: a full training learns more of it than the titles' frequencies."""
    lm = load_language_model(base)
    options = replace(
        OPTIONS, method="full", samples=0, epochs=5, batch_size=64, batch_tokens=8192, last_items=2
    )
    out = finetune(lm, ring, ring.rows("train"), SHORT, options, tmp_path / "full")
    manifest = read_manifest(out, "adapter")
    assert manifest["steps"] <= 30
    assert manifest["valid_loss"] < 0.6 * manifest["valid_loss_before"]
    tuned = load_language_model(base, adapter=out)
    assert tuned.fingerprint != lm.fingerprint
    assert (out / "config.json").is_file()


def test_the_sample_is_recorded(lora, ring):
    used = in_sft_sample(ring, lora)
    assert used.sum() == 48 == read_manifest(lora, "adapter")["rows_in_sample"]
    assert set(np.flatnonzero(used)) <= set(ring.rows("train"))
    with pytest.raises(Exception, match="made from dataset"):
        in_sft_sample(ring_dataset(users=20), lora)


# --- mistakes ----------------------------------------------------------------------------------------------------


def test_an_empty_adapter_is_an_error(lora, base, ring, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    lm = load_language_model(base)
    prompts = [lm.encode("Saga")]
    before = first_log_probabilities(lm.model, prompts)
    for name, part in (("one", "layers.0.mlp.up_proj.lora_B"), ("all", "lora_B")):
        folder = shutil.copytree(lora, tmp_path / name)
        tensors = load_file(folder / "adapter_model.safetensors")
        tensors = {key: torch.zeros_like(value) if part in key else value for key, value in tensors.items()}
        save_file(tensors, folder / "adapter_model.safetensors")
        with pytest.raises(TrainingError, match="empty"):
            prove_change(lm, folder, prompts, before)
    save_file({}, folder / "adapter_model.safetensors")
    with pytest.raises(TrainingError, match="there is none"):
        prove_change(lm, folder, prompts, before)


def test_a_training_that_changes_nothing_is_an_error(base, ring, tmp_path):
    lm = load_language_model(base)
    with pytest.raises(TrainingError, match="answers as before"):
        finetune(
            lm,
            ring,
            ring.rows("train"),
            SHORT,
            replace(OPTIONS, learning_rate=1e-11, epochs=1),
            tmp_path / "a",
        )
    assert not (tmp_path / "a").exists()


def test_an_adapter_of_another_model_is_refused(lora, base, ring, tmp_path):
    other = tmp_path / "lm"
    shape = SmallLmOptions(
        hidden_size=16,
        layers=1,
        heads=2,
        vocabulary=360,
        context=128,
        steps=1,
        batch_tokens=64,
        learning_rate=1e-2,
    )
    train_small_lm(ring, other, shape)
    with pytest.raises(ConfigError, match="does not fit"):
        load_language_model(other, adapter=lora)
    with pytest.raises(ConfigError, match="pass it as --adapter"):
        load_language_model(lora)


def test_nothing_is_learned_from_validation_rows(base, ring, tmp_path):
    with pytest.raises(DataError, match="split 'valid'"):
        finetune(load_language_model(base), ring, ring.rows("valid"), SHORT, OPTIONS, tmp_path / "a")


def test_targets_that_the_model_does_not_have(base, ring, tmp_path):
    lm = load_language_model(base)
    with pytest.raises(ConfigError, match="--targets all-linear"):
        finetune(lm, ring, ring.rows("train"), SHORT, replace(OPTIONS, targets="c_attn"), tmp_path / "a")


@pytest.mark.parametrize(
    "change", [{"method": "half"}, {"rank": 0}, {"dropout": 1.0}, {"learning_rate": -1.0}, {"epochs": 0}]
)
def test_options_out_of_range_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        FinetuneOptions(**change)


def test_presets_are_what_the_papers_and_we_say():
    official, modern = PRESETS["official"], PRESETS["modern"]
    assert (official.rank, official.alpha, official.dropout, official.target_modules) == (
        8,
        16,
        0.05,
        ["q_proj", "v_proj"],
    )
    assert (official.samples, official.batch_size, official.epochs, official.patience) == (1024, 128, 50, 5)
    assert (official.learning_rate, official.warmup_steps, official.max_tokens) == (1e-4, 20, 512)
    assert official.loss_on_prompt
    assert (modern.rank, modern.alpha, modern.target_modules, modern.loss_on_prompt) == (
        16,
        32,
        "all-linear",
        False,
    )
    model = tiny_lm().model
    assert chosen_method("auto", model) == "full"
    assert (chosen_rate(modern, "lora", model), chosen_rate(modern, "full", model)) == (2e-4, 1e-3)


# --- folds -------------------------------------------------------------------------------------------------------


def test_no_row_is_answered_by_a_model_that_knows_its_sequence(ring):
    folds = fold_of_row(ring, 3, seed=1)
    sequences = ring.row_sequences
    for fold in range(3):
        assert not set(sequences[folds == fold]) & set(sequences[folds != fold])
    dealt = np.bincount([folds[sequences == one][0] for one in np.unique(sequences)])
    assert dealt.max() - dealt.min() <= 1
    assert (fold_of_row(ring, 3, seed=1) == folds).all()
    assert (fold_of_row(ring, 3, seed=2) != folds).any()
    with pytest.raises(ConfigError, match="--folds 2"):
        fold_of_row(ring, 1)
