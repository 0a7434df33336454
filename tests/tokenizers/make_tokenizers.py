"""Makes the tokenizers in this folder and what SentencePiece and transformers make of some texts.

    pip install transformers==5.24 sentencepiece protobuf && python make_tokenizers.py

Each folder holds the files of a checkpoint without tokenizer.json. `expected.json` lists texts and the tokens of each: those of
SentencePiece where there is a tokenizer.model, without special tokens in the texts; those of transformers' class otherwise."""

import io
import json
import os
import random

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GPT2Tokenizer, Qwen2Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
WORDS = """the a of and to in is it that was for on are with as his they be at one have this from or had by hot word but what
some we can out other were all there when up use your how said an each she which do their time if will way about many then
them write would like so these her long make thing see him two has look more day could go come did number sound no most
people my over know water than call first who may down side been now find any new work part take get place made live where
after back little only round man year came show every good me give our under name very through just form sentence great
grüße straße naïve café größer über Übung éclair señor""".split()
TEXTS = [
    "Hello world",
    " the water  is   good ",
    "The people came\nand made\n\n a new  sentence.\t12345",
    "Grüße, naïve café! Straße über Übung",
    "漢字 and 👩‍👩‍👧‍👦 emoji ½ ﬁne ①",
    "it's they're I'LL 2024-11-28 $3.50 foo_bar(baz);",
    "▁marked ▁▁ spaces",
    "<|user|>the<|end|> way <0x41>",
    "",
    " ",
    "x",
]


def corpus():
    draw = random.Random(7)
    for _ in range(3000):
        words = [draw.choice(WORDS) for _ in range(draw.randint(3, 12))]
        yield " ".join(words).capitalize() + draw.choice([".", "!", "?", ", 12", " (1990)"])


def folder(name):
    path = os.path.join(HERE, name)
    os.makedirs(path, exist_ok=True)
    return path


def write(path, content):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=1)
        file.write("\n")


def expect(path, encode, texts):
    lines = [json.dumps([text, encode(text)], ensure_ascii=False) for text in texts]
    with open(os.path.join(path, "expected.json"), "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(lines) + "\n]\n")


def sentence_piece(name, config, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=corpus(), model_writer=model, minloglevel=2, num_threads=1, **options
    )
    path = folder(name)
    with open(os.path.join(path, "tokenizer.model"), "wb") as file:
        file.write(model.getvalue())
    if config is not None:
        write(os.path.join(path, "tokenizer_config.json"), config)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    expect(path, processor.encode, TEXTS)


def byte_level(name, class_, config):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    path = folder(name)
    tokenizer.model.save(path)
    write(os.path.join(path, "tokenizer_config.json"), config)
    loaded = class_.from_pretrained(path)
    texts = TEXTS + ["<|im_start|>user\nthe way<|im_end|>"]
    expect(path, lambda text: loaded.encode(text, add_special_tokens=False), texts)


def special(content):
    return {"content": content, "special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}


LLAMA = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
sentence_piece("llama", LLAMA, vocab_size=600, model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
               remove_extra_whitespaces=False, split_digits=True, character_coverage=0.9995)
sentence_piece("gemma", None, vocab_size=640, model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
               remove_extra_whitespaces=False, add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
               user_defined_symbols=["<|user|>", "<|end|>", "\n\n", "▁▁", "▁▁▁"])
sentence_piece("unigram", None, vocab_size=500, model_type="unigram", byte_fallback=True)
sentence_piece("unigram_without_bytes", None, vocab_size=300, model_type="unigram", user_defined_symbols=["<|user|>"])
sentence_piece("bpe_with_table", None, vocab_size=400, model_type="bpe", normalization_rule_name="nmt_nfkc_cf")
decoder = {str(400 + i): special(text) for i, text in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])}
byte_level("qwen2", Qwen2Tokenizer, {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>",
                                      "pad_token": "<|endoftext|>", "added_tokens_decoder": decoder})
byte_level("gpt2", GPT2Tokenizer, {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|im_start|>",
                                    "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>",
                                    "added_tokens_decoder": decoder})
