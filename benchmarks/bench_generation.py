"""Tokens per second of batched generation, against a plain `generate` loop of batch 8 in row order.

Both sides get the same model, prompts and search, write the same answers, and include tokenizing and decoding. The
model is random; the weights of its end token are scaled so that answers have about the lengths of titles, a
dozen tokens on average and now and then the most that is allowed. Constrained search stands beside the library's with
`prefix_allowed_tokens_fn`, and batches in order of length beside batches in row order, both ours and the plain
loop's. What both sides write is compared, too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

import report
from measure import compare
from recdistill.teachers.backends import GenerationRequest, HfGenerator
from recdistill.teachers.generation.decoding import DecodeOptions, greedy
from recdistill.teachers.language_model.loading import LanguageModel
from recdistill.teachers.language_model.prompts import PROMPT_TEMPLATES

GOAL = 3.0
BATCH = 8
TEMPLATE = PROMPT_TEMPLATES["generic"]


def titles(count: int, generator: np.random.Generator) -> list[str]:
    """Return made titles of 2 to 9 made words, frequent words first."""
    syllables = ["ka", "lo", "mi", "ter", "an", "vi", "sto", "ru", "el", "gan", "do", "pre"]
    words = ["".join(generator.choice(syllables, generator.integers(1, 4))).title() for _ in range(1500)]
    draw = (generator.random((count, 9)) ** 2 * len(words)).astype(int)
    sizes = generator.integers(2, 10, count)
    return list(
        dict.fromkeys(" ".join(words[w] for w in row[:size]) for row, size in zip(draw, sizes, strict=True))
    )


def language_model(texts: list[str], options: Any) -> LanguageModel:
    """Return a Llama with random weights and a byte-level BPE tokenizer trained on the titles."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special, alphabet = ["<pad>", "<s>", "</s>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=options.vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator([*texts, TEMPLATE.prompt([])], trainer)
    words = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left"
    )
    torch.manual_seed(options.seed)
    config = LlamaConfig(
        vocab_size=max(options.vocabulary, len(words)),
        hidden_size=options.hidden,
        intermediate_size=options.hidden * 8 // 3,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 32,
        num_key_value_heads=options.hidden // 32,
        max_position_embeddings=1024,
        initializer_range=0.1,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = LlamaForCausalLM(config).eval().to(device)
    with torch.no_grad():
        model.lm_head.weight[2] *= options.end_weight
    return LanguageModel("random Llama", model, words, "bench")


def plain(
    lm: LanguageModel, prompts: list[str], new_tokens: int, beams: int, allowed: Any = None
) -> list[list[str]]:
    """Return what the library's own search writes, in batches of 8 in row order, as one would write it first."""
    found = []
    for start in range(0, len(prompts), BATCH):
        batch = lm.tokenizer(prompts[start : start + BATCH], padding=True, return_tensors="pt").to(lm.device)
        width = batch.input_ids.shape[1]
        ids = lm.model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=new_tokens,
            num_beams=beams,
            num_return_sequences=beams,
            do_sample=False,
            length_penalty=0.0 if allowed else 1.0,
            prefix_allowed_tokens_fn=None
            if allowed is None
            else lambda _, ids, w=width: allowed(ids[w:].tolist()),
        )
        texts = lm.tokenizer.batch_decode(ids[:, width:], skip_special_tokens=True)
        found += [texts[i : i + beams] for i in range(0, len(texts), beams)]
    return found


def prefix_function(lm: LanguageModel, completions: list[str]) -> Callable[[list[int]], list[int]]:
    """Return prefix to allowed tokens, from a dictionary of dictionaries."""
    tree: dict[int, Any] = {}
    for tokens in lm.encode_answers(completions):
        node = tree
        for token in [*tokens, lm.eos_id]:
            node = node.setdefault(token, {})

    def allowed(prefix: list[int]) -> list[int]:
        node = tree
        for token in prefix:
            node = node.get(token, {})
        return list(node) or [lm.eos_id]

    return allowed


def answer_all(generator: HfGenerator, requests: list[GenerationRequest]) -> int:
    """Answer all requests; return how many there are."""
    return len(list(generator.generate(requests)))


def unsorted(generator: HfGenerator, requests: list[GenerationRequest]) -> int:
    """Run greedy search in batches of row order, as large as the sorted ones; return the rows."""
    size = max(len(batch) for batch in generator.batches(requests))
    for start in range(0, len(requests), size):
        prompts = generator.lm.encode_all([r.prompt for r in requests[start : start + size]])
        answers = greedy(generator.scorer, prompts, generator.options, generator.eos)
        _ = [generator.lm.decode(row[0]) for row in answers.tokens]
    return len(requests)


@dataclass(frozen=True)
class Search:
    """One way to search: ours by the name of each side, and the plain loop."""

    ours: dict[str, HfGenerator]
    plain: Callable[[], list[list[str]]]
    rows: int


def searches(
    lm: LanguageModel, made: list[str], requests: list[GenerationRequest], options: Any
) -> dict[str, Search]:
    """Return what is timed, by the name of the search."""
    prompts = [request.prompt for request in requests]
    few = prompts[: options.beam_rows]
    completions = [TEMPLATE.completion(title) for title in made]
    new, beams = options.new_tokens, options.beams
    longest, allowed = max(map(len, lm.encode_answers(completions))) + 1, prefix_function(lm, completions)

    def ours(**search: Any) -> HfGenerator:
        return HfGenerator(
            lm, DecodeOptions(**search), completions=completions, batch_tokens=options.batch_tokens
        )

    return {
        "greedy": Search(
            {"ours": ours(mode="greedy", max_new_tokens=new)},
            lambda: plain(lm, prompts, new, 1),
            len(prompts),
        ),
        f"{beams} beams": Search(
            {"ours": ours(mode="beam", beams=beams, max_new_tokens=new)},
            lambda: plain(lm, few, new, beams),
            len(few),
        ),
        f"titles, {beams} beams": Search(
            {
                "ours, whole vocabulary": ours(mode="constrained", beams=beams, renormalise=False),
                "ours": ours(mode="constrained", beams=beams),
            },
            lambda: plain(lm, few, longest, beams, allowed),
            len(few),
        ),
    }


def agreement(ours: dict[int, Any], theirs: list[list[str]], requests: list[GenerationRequest]) -> float:
    """Return the share of rows whose best text is the same."""
    pairs = zip((ours[request.key].texts[0] for request in requests), theirs, strict=True)
    return float(np.mean([mine == other[0] for mine, other in pairs]))


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--rows", type=int, default=176)
    parser.add_argument("--beam-rows", type=int, default=44, help="rows of the beam searches")
    parser.add_argument("--titles", type=int, default=5000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--end-weight", type=float, default=3.0, help="larger: shorter answers")
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--batch-tokens", type=int, default=16384)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    made = titles(options.titles, generator)
    lm = language_model(made, options)
    sizes = generator.integers(1, 11, options.rows)
    requests = [
        GenerationRequest(row, TEMPLATE.prompt([made[i] for i in generator.integers(len(made), size=size)]))
        for row, size in enumerate(sizes)
    ]
    lengths = [len(ids) for ids in lm.encode_all([request.prompt for request in requests])]
    content: dict[str, Any] = {"setting": {**vars(options), "out": str(options.out)}, "searches": {}}
    rows, same = [], {}
    for name, search in searches(lm, made, requests, options).items():
        asked = requests[: search.rows]
        answers = [{a.key: a for a in side.generate(asked)} for side in search.ours.values()]
        same[name] = agreement(answers[0], search.plain(), asked)  # the first searches as the library does
        work: dict[str, Callable[[], object]] = {"plain": search.plain}
        for side, generator in search.ours.items():
            work[side] = partial(answer_all, generator, asked)
        if name == "greedy":
            ordered = sorted((request.prompt for request in requests), key=len, reverse=True)
            work["plain, sorted"] = partial(plain, lm, ordered, options.new_tokens, 1)
            work["ours, row order"] = partial(unsorted, search.ours["ours"], requests)
        times = compare(work, repeats=options.repeats, threads=options.threads, warmup=0)
        tokens = sum(answer.new_tokens for answer in answers[0].values())
        content["searches"][name] = {"times": times, "tokens": tokens}
        for side, value in times.items():
            ratio = report.ratio(times["plain"], value)
            speed = 1e3 * tokens / value["wall_min_ms"]
            rows.append((name, side, value["cpu_1_thread_ms"], value["wall_min_ms"], speed, *ratio.values()))
    head = ("search", "side", "CPU ms, 1 thread", "wall min ms", "tokens/s", "ratio CPU", "ratio wall")
    text = report.table(head, rows)
    mean = content["searches"]["greedy"]["tokens"] / len(requests)
    text += f"\n\n{_facts(lm, lengths, options, mean)}\n\n{_verdict(content, same)}"
    content["same_best_text"] = same
    report.save("generation", options.threads, options.out, content, text)
    if min(same.values()) < 0.97:
        sys.exit(f"the two sides write different texts: {same}")


def _facts(lm: LanguageModel, lengths: list[int], options: Any, mean: float) -> str:
    weights = sum(weight.numel() for weight in lm.model.parameters()) / 1e6
    return (
        f"{weights:.1f}M parameters on {lm.device}, {len(lengths)} prompts of {min(lengths)} to {max(lengths)} tokens "
        f"(mean {np.mean(lengths):.0f}); answers of up to {options.new_tokens} tokens (mean {mean:.1f}, "
        f"greedy), or one of {options.titles:,} titles."
    )


def _verdict(content: dict[str, Any], same: dict[str, float]) -> str:
    reached = {}
    for name, found in content["searches"].items():
        found["ratio"] = report.ratio(found["times"]["plain"], found["times"]["ours"])
        reached[name] = found["goal_met"] = min(found["ratio"].values()) >= GOAL
    content["goal_met"] = all(reached.values())
    times = content["searches"]["greedy"]["times"]
    ours = report.ratio(times["ours, row order"], times["ours"])
    plain = report.ratio(times["plain"], times["plain, sorted"])
    content["sorted_ratio"] = {"ours": ours, "plain": plain}
    goals = ", ".join(f"{name} {'met' if met else 'missed'}" for name, met in reached.items())
    order = ", ".join(
        f"{side} {ratio['cpu_1_thread']:.2f} CPU and {ratio['wall']:.2f} wall"
        for side, ratio in content["sorted_ratio"].items()
    )
    shares = ", ".join(f"{name} {share:.0%}" for name, share in same.items())
    return (
        f"Goal, at least {GOAL:g} times the plain loop in CPU and wall time: {goals}. In order of length against row "
        f"order: {order}. Same best text on both sides: {shares}."
    )


if __name__ == "__main__":
    main()
