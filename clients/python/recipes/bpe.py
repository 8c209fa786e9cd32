"""A byte-level BPE of a few thousand tokens with Qwen's splitting, trained by the `tokenizers` package."""

import json
import os

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
           r"\s+(?!\S)|\s+")
END, START_OF_TURN, END_OF_TURN = SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + "
                 "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
                 "{% endif %}")


def train(texts, vocabulary):
    """A tokenizers.Tokenizer; the special tokens are ids 0, 1 and 2."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    result = Tokenizer(models.BPE())
    result.normalizer = normalizers.NFC()
    result.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    result.decoder = decoders.ByteLevel()
    result.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    result.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False))
    return result


def kept(path, texts, vocabulary):
    """That of the file; trained and written there if it is not there yet."""
    from tokenizers import Tokenizer
    if not os.path.exists(path):
        train(texts, vocabulary).save(path + ".new")
        os.replace(path + ".new", path)
    return Tokenizer.from_file(path)


def chat(turns):
    """The text of (role, content) pairs as the chat template writes it."""
    return "".join(f"{START_OF_TURN}{role}\n{content}{END_OF_TURN}\n" for role, content in turns)


def write(directory, tokenizer, context):
    """tokenizer.json, tokenizer_config.json (with the chat template) and generation_config.json."""
    tokenizer.save(os.path.join(directory, "tokenizer.json"))
    ids = {text: tokenizer.token_to_id(text) for text in SPECIAL}
    added = {str(number): {"content": text, "lstrip": False, "normalized": False, "rstrip": False,
                           "single_word": False, "special": True} for text, number in ids.items()}
    write_json(directory, "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": added, "add_bos_token": False,
        "bos_token": None, "eos_token": END_OF_TURN, "pad_token": END, "unk_token": None,
        "additional_special_tokens": list(SPECIAL), "clean_up_tokenization_spaces": False,
        "model_max_length": context, "chat_template": CHAT_TEMPLATE})
    write_json(directory, "generation_config.json", {
        "eos_token_id": [ids[END_OF_TURN], ids[END]], "pad_token_id": ids[END], "do_sample": True,
        "temperature": 0.7, "top_p": 0.9, "top_k": 40})


def write_json(directory, name, value):
    with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
