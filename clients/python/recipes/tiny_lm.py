"""A toy language model whose experts can be watched: nine million parameters, three kinds of old and public English.

    apt-get download bible-kjv-text r-cran-janeaustenr jargon-text      (in DIR)
    python3 -m recipes.tiny_lm --data DIR --out CHECKPOINT

Every layer has 16 experts of which two serve a token. The checkpoint is in the Hugging Face layout, model_type
qwen3_moe. Needs the `tokenizers` package. An epoch is 100 steps of 2,048 tokens, about as many from each kind of text;
the last quarter of the training has twice the context and a falling rate.
"""

import os
import random
import zlib

import numpy as np
import torch
from torch.nn import functional as F

from moed import routing_metrics as metrics
from moed import safetensors
from recipes import bpe, card, causal_moe, lm_card, public_texts, runner

SHAPE = causal_moe.Shape(vocabulary=2048, hidden=256, layers=4, heads=4, kv_heads=2, head_size=32, experts=16, top_k=2,
                         expert_size=160, theta=10000.0, eps=1e-6, context=512)
STEPS, STEP_TOKENS, SHORT, EPOCHS = 100, 2048, 256, 60
RATE, WARM_UP, LAST_PART, LAST_RATE = 2e-3, 200, 0.25, 0.05
BETAS, DECAY, LARGEST_GRADIENT = (0.9, 0.98), 0.1, 1.0
# Experts are kept evenly used until they have formed; then they may follow the text.
EARLY_BALANCE, EARLY_STEPS, BALANCE, ROUTER_Z = 0.01, 1000, 0.001, 0.001
# How often a window is from this domain. The Jargon File is a third as long as the others.
SHARES = {"bible": 0.36, "austen": 0.36, "jargon": 0.28}
TORCH_TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
DATA = ("Debian packages: `bible-kjv-text` (its copyright file: the King James Version's copyright \"is expired\"), "
        "`r-cran-janeaustenr` (packaged under MIT; the six novels are of 1811 to 1817, their author died in 1817), "
        "`jargon-text` (its copyright file: \"in the public domain, to be freely used, shared, and modified\")")
HELD_OUT = 25  # one document in so many is not trained on


# --- text -------------------------------------------------------------------------------------------------------

def is_held_out(document):
    return zlib.crc32(document.text.encode()) % HELD_OUT == 0


def passage(lines, generator, most=700):
    """Some consecutive lines from a random place, of about at most so many characters."""
    begin = generator.randrange(len(lines))
    end = begin + 1
    while end < len(lines) and sum(map(len, lines[begin:end + 1])) <= most:
        end += 1
    return "\n".join(lines[begin:end])


def question_and_answer(domain, document, generator):
    """(what a person might ask, the answer) made of a document; None if nothing can be asked."""
    lines = document.text.split("\n")
    if domain == "jargon":
        if not document.title:
            return None
        return f"What is {document.title}?", "\n".join(lines[1:4])[:1200]
    asked = {"bible": f"Read to me from {document.title}.", "austen": f"Tell me something as in {document.title}."}
    return asked[domain], passage(lines[1:], generator)


def chats(domain, documents, generator):
    """About as many conversations as there are chapters or entries."""
    count = max(1, 1200 // len(documents))
    pairs = [question_and_answer(domain, document, generator) for document in documents for _ in range(count)]
    return [bpe.chat([("user", pair[0]), ("assistant", pair[1])]) for pair in pairs if pair]


def token_ids(tokenizer, texts):
    """All texts in one array, each followed by the token that ends it."""
    end = tokenizer.token_to_id(bpe.END)
    encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return torch.tensor([number for text in encoded for number in text.ids + [end]])


class Texts:
    """train, test: {domain: ids}; bytes: {domain: length of the test text}."""

    def __init__(self, documents, tokenizer):
        self.tokenizer, generator = tokenizer, random.Random(0)
        self.train, self.test, self.bytes = {}, {}, {}
        for domain, all_of_it in documents.items():
            kept = [document for document in all_of_it if not is_held_out(document)]
            texts = [document.text for document in kept] + chats(domain, kept, generator)
            generator.shuffle(texts)
            held_out = [document.text for document in all_of_it if is_held_out(document)]
            self.train[domain], self.test[domain] = token_ids(tokenizer, texts), token_ids(tokenizer, held_out)
            self.bytes[domain] = sum(len(text.encode()) + 1 for text in held_out)


# --- training ---------------------------------------------------------------------------------------------------

def rate(step, steps):
    """Of the full rate: rises, stays, and falls in the last part."""
    left = (steps - step) / (steps * LAST_PART)
    return min(1.0, (step + 1) / WARM_UP, LAST_RATE + (1 - LAST_RATE) * left)


class TinyLmJob(runner.Job):
    def __init__(self, model, texts, epochs):
        matrices = [weight for weight in model.parameters() if weight.dim() > 1]
        rest = [weight for weight in model.parameters() if weight.dim() == 1]
        groups = [{"params": matrices, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer, self.texts = torch.optim.AdamW(groups, lr=RATE, betas=BETAS), texts
        super().__init__(model, {"optimizer": self.optimizer}, epochs)

    def windows(self, length):
        """(rows, length + 1) random windows."""
        domains = torch.multinomial(torch.tensor(list(SHARES.values())), STEP_TOKENS // length, replacement=True)
        sources = [self.texts.train[list(SHARES)[domain]] for domain in domains]
        begins = [int(torch.randint(len(ids) - length, ())) for ids in sources]
        return torch.stack([ids[begin:begin + length + 1] for ids, begin in zip(sources, begins)])

    def step(self, number, steps):
        """(cross entropy, share of tokens that were not the likeliest)"""
        windows = self.windows(SHORT if number < steps * (1 - LAST_PART) else SHAPE.context)
        logits, truth = self.model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten()
        loss = F.cross_entropy(logits, truth)
        balance = EARLY_BALANCE if number < EARLY_STEPS else BALANCE
        router = sum(balance * causal_moe.balance_loss(routing, SHAPE.experts) + ROUTER_Z * causal_moe.z_loss(routing)
                     for routing in self.model.routings())
        self.optimizer.zero_grad(set_to_none=True)
        (loss + router).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST_GRADIENT)
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * rate(number, steps)
        self.optimizer.step()
        return loss.item(), (logits.argmax(dim=-1) != truth).float().mean().item()

    def epoch(self):
        first, steps = len(self.history) * STEPS, self.epochs * STEPS
        results = [self.step(first + number, steps) for number in range(STEPS)]
        return tuple(np.mean(results, axis=0).tolist())


# --- measurement ------------------------------------------------------------------------------------------------

def measure_domain(model, ids):
    """(summed cross entropy in nats, tokens predicted, (layers, experts) times chosen) over whole windows."""
    windows = ids[:len(ids) // SHAPE.context * SHAPE.context].view(-1, SHAPE.context)
    total, counts = 0.0, np.zeros((SHAPE.layers, SHAPE.experts))
    for rows in windows.split(8):
        logits = model(rows)[:, :-1].flatten(0, 1)
        total += F.cross_entropy(logits, rows[:, 1:].flatten(), reduction="sum").item()
        counts += [torch.bincount(routing.experts.flatten(), minlength=SHAPE.experts).numpy()
                   for routing in model.routings()]
    return total, windows[:, 1:].numel(), counts


def information_bits(shares):
    """I(expert; domain) of a layer from (domains, experts) shares, all domains as likely."""
    return float(metrics.entropy_bits(shares.mean(axis=0)) - metrics.entropy_bits(shares).mean())


def figures(model, texts):
    """On held-out text; nothing here depends on how long a domain's text is."""
    model.eval()
    result, shares = {"perplexity": {}, "bits_per_byte": {}}, []
    with torch.no_grad():
        for domain, ids in texts.test.items():
            nats, tokens, counts = measure_domain(model, ids)
            result["perplexity"][domain] = float(np.exp(nats / tokens))
            result["bits_per_byte"][domain] = nats / tokens / np.log(2) * len(ids) / texts.bytes[domain]
            shares.append(counts / counts.sum(axis=1, keepdims=True))
    shares = np.stack(shares, axis=1)  # (layers, domains, experts)
    result["information_bits"] = [information_bits(layer) for layer in shares]
    result["usage_entropy_bits"] = [float(metrics.entropy_bits(layer.mean(axis=0))) for layer in shares]
    result["shares"] = {domain: shares[:, index].round(4).tolist() for index, domain in enumerate(texts.test)}
    return result


class TinyLm(runner.Recipe):
    name, about, data = "tiny_lm", __doc__, "data/tiny_lm"
    variants, seeds = ("qwen3-moe",), (0,)

    def read(self, directory, variant):
        documents = public_texts.read(directory)
        learned_from = [document.text for domain in documents.values() for document in domain
                        if not is_held_out(document)]
        return Texts(documents, bpe.kept(os.path.join(directory, "tokenizer.json"), learned_from, SHAPE.vocabulary))

    def job(self, variant, data, teacher, epochs):
        return TinyLmJob(causal_moe.CausalMoE(SHAPE), data, epochs or EPOCHS)

    def measure(self, job, data):
        parameters = sum(weight.numel() for weight in job.model.parameters())
        return {"parameters": parameters, "tokens": len(job.history) * STEPS * STEP_TOKENS,
                "training_loss": job.history[-1][0], **figures(job.model, data)}

    def export(self, variant, model, data, row, options, directory):
        """The figures of the card are those of the weights as stored."""
        os.makedirs(directory, exist_ok=True)
        ends = [data.tokenizer.token_to_id(text) for text in (bpe.END_OF_TURN, bpe.END)]
        bpe.write_json(directory, "config.json", causal_moe.config(SHAPE, ends, TORCH_TYPES[options.dtype]))
        bpe.write(directory, data.tokenizer, SHAPE.context)
        safetensors.write(os.path.join(directory, "model.safetensors"), causal_moe.published(model),
                          options.dtype.upper())
        stored = causal_moe.load(directory)
        facts = card.origin(DATA, options.command, row, model, options.dtype)
        measured = figures(stored, data)
        facts.update(lm_card.facts(measured, row))
        card.write(directory, lm_card.ABOUT, facts, lm_card.closing(measured, stored, data.tokenizer))


if __name__ == "__main__":
    runner.main(TinyLm())
