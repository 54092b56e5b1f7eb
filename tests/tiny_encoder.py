"""A text encoder of a few thousand weights with a word tokenizer, made in the process."""

from recdistill.teachers.text.tower import TextTower


def network(seed=0, layers=3):
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    shape = {"vocab_size": 80, "hidden_size": 24, "intermediate_size": 32, "max_position_embeddings": 64}
    config = BertConfig(**shape, num_hidden_layers=layers, num_attention_heads=2, pad_token_id=0)
    return BertModel(config, add_pooling_layer=False)


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["part", "of", "saga", "colour", ",", *map(str, range(40))]
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def tiny_tower(seed=0, layers=3, **options):
    """Return a tower with random weights, in single precision."""
    return TextTower(network(seed, layers), tokenizer(), **options)


def save_encoder(folder, seed=0):
    """Write an ordinary Hugging Face folder."""
    network(seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
