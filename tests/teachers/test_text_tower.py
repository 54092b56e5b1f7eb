import json

import numpy as np
import pytest
import torch

from recdistill.errors import ConfigError
from recdistill.teachers.text.tower import LowerLayers, stack_of
from recdistill.teachers.text.tower_loading import choose_trained, load_text_tower
from tiny_encoder import save_encoder, tiny_tower

TEXTS = ["part 1 of saga 2", "", "colour 7", "part 3 of saga 3 colour 4 , part 5", "saga"]
EVERY = np.arange(len(TEXTS))


def test_tokens_are_cut_and_laid_out_in_padded_batches():
    tower = tiny_tower(max_tokens=6)
    lists = tower.tokenised(TEXTS)
    assert lists.lengths.tolist() == [6, 2, 4, 6, 3]
    places, real = lists.places(np.array([2, 0]))
    assert lists.tokens[places][0].tolist()[:4] == tower.tokenizer(TEXTS[2])["input_ids"]
    assert real.tolist() == [[True] * 4 + [False] * 2, [True] * 6]
    batches = list(lists.batches(EVERY, 12))
    assert sorted(np.concatenate(batches).tolist()) == EVERY.tolist()
    assert all(len(batch) * lists.lengths[batch].max() <= 12 for batch in batches)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_vector_does_not_depend_on_its_company(pooling):
    tower = tiny_tower(pooling=pooling, batch_tokens=10_000)
    lists = tower.tokenised(TEXTS)
    together = tower(lists, EVERY[::-1].copy())
    alone = torch.cat([tower(lists, np.array([text])) for text in EVERY[::-1]])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    tower.batch_tokens = 8
    torch.testing.assert_close(tower(lists, EVERY[::-1].copy()), alone, atol=1e-5, rtol=1e-5)


def test_pooling_follows_its_name():
    tower = tiny_tower()
    lists = tower.tokenised(TEXTS[:1])
    ids = torch.from_numpy(lists.tokens)[None]
    states = tower.network(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
    for pooling, expected in (("mean", states.mean(0)), ("cls", states[0]), ("last", states[-1])):
        tower.pooling = pooling
        torch.testing.assert_close(tower(lists, EVERY[:1])[0], expected)


def test_kept_lower_layers_give_the_same_vectors_and_gradients():
    tower = tiny_tower()
    choose_trained(tower, "layers", layers=1)
    lists = tower.tokenised(TEXTS)
    lower = LowerLayers.of(tower, lists, 1 << 20)
    assert lower is not None
    assert lower.states.shape == (len(lists.tokens), 24)
    gradients = []
    for given in (None, lower):
        tower.zero_grad()
        vectors = tower(lists, EVERY, given)
        (vectors * torch.arange(24)).sum().backward()
        gradients.append([vectors.detach(), *(p.grad for p in tower.parameters() if p.grad is not None)])
    assert len(gradients[0]) > 5
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
    assert len(stack_of(tower.network)[2]) == 3  # the network has all its layers again


def test_lower_layers_are_really_not_run():
    tower = tiny_tower()
    choose_trained(tower, "layers", layers=1)
    lists = tower.tokenised(TEXTS)
    lower = LowerLayers.of(tower, lists, 1 << 20)
    before = tower(lists, EVERY, lower)
    with torch.no_grad():
        for parameter in stack_of(tower.network)[2][0].parameters():
            parameter.zero_()
    torch.testing.assert_close(tower(lists, EVERY, lower), before)
    assert not torch.allclose(tower(lists, EVERY), before, atol=1e-3)


def test_where_layers_are_not_kept():
    tower = tiny_tower()
    choose_trained(tower, "layers", layers=2)
    lists = tower.tokenised(TEXTS)
    assert LowerLayers.of(tower, lists, 100) is None  # too little memory
    choose_trained(tower, "full")
    assert LowerLayers.of(tower, lists, 1 << 20) is None

    tower = tiny_tower()
    choose_trained(tower, "layers", layers=1)
    top = stack_of(tower.network)[2][2]
    plain = top.forward
    # a layer that also reads what a lower one left behind cannot be run apart
    counted = {"runs": 0}

    def first(module, args, kwargs):
        counted["runs"] += 1

    stack_of(tower.network)[2][0].register_forward_pre_hook(first, with_kwargs=True)

    def depends(hidden, *args, **kwargs):
        moved = plain(hidden, *args, **kwargs)
        left, counted["runs"] = counted["runs"], 0
        return moved + left

    top.forward = depends
    assert LowerLayers.of(tower, lists, 1 << 20) is None


@pytest.mark.parametrize("tune", ["layers", "full", "none", "lora"])
def test_only_what_is_chosen_is_trained(tune):
    tower = tiny_tower()
    choose_trained(tower, tune, layers=2, rank=2)
    names = {name for name, p in tower.named_parameters() if p.requires_grad}
    wanted = {
        "layers": lambda name: "layer.1." in name or "layer.2." in name,
        "full": lambda name: True,
        "none": lambda name: False,
        "lora": lambda name: "lora_" in name,
    }[tune]
    assert names == {name for name, _ in tower.named_parameters() if wanted(name)}
    if tune != "none":
        lists = tower.tokenised(TEXTS)
        (tower(lists, EVERY) * torch.arange(24)).sum().backward()
        assert all((p.grad is not None) == p.requires_grad for p in tower.parameters())


def test_folders_are_loaded_with_their_pooling(tmp_path):
    save_encoder(tmp_path / "plain")
    loaded = load_text_tower(str(tmp_path / "plain"), precision="float32")
    assert (loaded.pooling, loaded.name, loaded.bf16) == ("mean", "plain", False)
    lists = loaded.tokenised(TEXTS)
    torch.testing.assert_close(loaded(lists, EVERY), tiny_tower()(lists, EVERY))
    save_encoder(tmp_path / "sentence" / "0_Transformer")
    modules = [
        {"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (tmp_path / "sentence" / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "sentence" / "1_Pooling").mkdir()
    (tmp_path / "sentence" / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    sentence = load_text_tower(str(tmp_path / "sentence"), precision="bf16")
    assert (sentence.pooling, sentence.bf16) == ("cls", True)
    assert sentence.identity != loaded.identity


def test_mistakes_are_explained(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"nowhere/encoder.* cannot be loaded .*Pass --model"):
        load_text_tower("nowhere/encoder")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_text_tower(str(tmp_path))
    with pytest.raises(ConfigError, match="unknown precision 'fp16'"):
        load_text_tower("any", precision="fp16")
    with pytest.raises(ConfigError, match="Did you mean 'layers'"):
        choose_trained(tiny_tower(), "layer")
