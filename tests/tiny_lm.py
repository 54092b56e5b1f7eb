"""A language model of a few thousand weights with its own byte-level tokenizer, made in the process."""

import functools

from recdistill.teachers.language_model.loading import LanguageModel

TITLES = [
    "Star",
    "Star Wars",
    "Star Wars: The Last Stand",
    "Star Trek",
    "Stargate",
    "The Sea",
    "The Sea Within",
    "The Secret Garden",
    "Theatre of Blood",
    "A Night at the Opera",
    "A Night to Remember",
    "Amélie",
    "Ran",
    "Rango",
    "Up",
    "Upside Down",
    "Z",
    "Zodiac",
    "Alien",
    "Aliens",
]


@functools.cache
def tokenizer(extra=()):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([*TITLES, *extra, "The person has watched these films: ### Answer:\n"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def tiny_lm(
    kind: str = "llama", *, seed: int = 0, attention: str = "sdpa", extra: tuple[str, ...] = ()
) -> LanguageModel:
    """Return a random model whose distributions are far from uniform."""
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig

    words = tokenizer(extra)
    shape = {"vocab_size": len(words), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    rest = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.4,
        "tie_word_embeddings": False,
    }
    if kind == "llama":
        config = LlamaConfig(**shape, **rest)
    elif kind == "mistral":  # attends to a window
        config = MistralConfig(**shape, **rest, sliding_window=12)
    else:
        config = GPT2Config(**shape, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.4)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    return LanguageModel(f"tiny-{kind}-{seed}", model, words, f"{kind} {seed}")
