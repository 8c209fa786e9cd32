"""What the card of the toy language model says beside where it comes from."""

import torch

from recipes import bpe, causal_moe

ABOUT = ("**A toy.** It has learned three books of old English and nothing of the world, and what it writes means "
         "nothing. It is here so that tokens can be streamed and the experts behind each be seen: 4 layers with 16 "
         "experts, 2 per token. Layout and names are those of Hugging Face's `Qwen3MoeForCausalLM`.")
PROMPTS = {"bible": "And it came to pass", "austen": "Emma was", "jargon": ":hack:"}
QUESTION = "What is a hacker?"
SAMPLE_TOKENS = 60


def facts(figures, row):
    by_domain = [f"{domain} {value:.1f} ({figures['bits_per_byte'][domain]:.2f} bits per byte)"
                 for domain, value in figures["perplexity"].items()]
    layers = [f"{value:.2f}" for value in figures["information_bits"]]
    usage = [f"{value:.2f}" for value in figures["usage_entropy_bits"]]
    return {"Trained on": f"{row['tokens']:,} tokens, {row['cpu_seconds'] / 3600:.1f} CPU hours",
            "Perplexity per token of held-out text": ", ".join(by_domain),
            "I(expert; domain), by layer": ", ".join(layers) + " bits (at most log2 3 = 1.58)",
            "Entropy of usage, by layer": ", ".join(usage) + " bits (at most log2 16 = 4)"}


def shares_table(shares):
    """Markdown: of a domain's choices the share of each expert, in per cent; domains are the lines of a layer."""
    experts = range(len(next(iter(shares.values()))[0]))
    lines = ["| layer | text | " + " | ".join(map(str, experts)) + " |", "|---|---|" + "---|" * len(experts)]
    for layer in range(len(next(iter(shares.values())))):
        for domain, by_layer in shares.items():
            cells = [f"{100 * share:.0f}" for share in by_layer[layer]]
            lines.append(f"| {layer} | {domain} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def samples(model, tokenizer):
    """What it makes of each prompt, and of a question asked as in a chat."""
    torch.manual_seed(0)
    ends = [tokenizer.token_to_id(text) for text in (bpe.END, bpe.END_OF_TURN)]
    asked = bpe.chat([("user", QUESTION)]) + bpe.START_OF_TURN + "assistant\n"
    result = []
    for shown, prompt in [(text, text) for text in PROMPTS.values()] + [(QUESTION, asked)]:
        ids = causal_moe.continued(model, tokenizer.encode(prompt).ids, SAMPLE_TOKENS, ends)
        text = " ".join(tokenizer.decode(ids).split())
        result.append(f"> **{shown}** {text} ...")
    return "\n>\n".join(result)


def closing(figures, model, tokenizer):
    return ("Perplexity and routing were measured on the weights as stored, on documents that were not trained on (one "
            "of 25, by a checksum), in windows of 512 tokens. Of each text's choices, the share of each expert in per "
            f"cent:\n\n{shares_table(figures['shares'])}\n\nWhat it writes (temperature 0.7, top 40):\n\n"
            f"{samples(model, tokenizer)}\n\nThe prompts that suit it are a chapter of the Bible (\"Genesis 12\" and a "
            "new line), a sentence of a novel, a word as the Jargon File has it (\":word:\"); in a chat \"What is "
            "WORD?\", \"Read to me from Isaiah.\", \"Tell me something as in Emma.\"")


# --- RESULTS.md -------------------------------------------------------------------------------------------------

RESULTS_TEXT = """
## A toy language model

`python3 -m recipes.tiny_lm`: 4 layers, 16 experts, 2 per token, trained on the Bible (King James), the novels of Jane
Austen and the Jargon File. A toy: what it is for is [its card](../../deploy/models/tiny-lm/README.md). All figures are
of held-out text. I(expert; domain) says how much one choice of a layer tells about the text it is from; all three
texts count the same, so it is at most log2 3 = 1.58 bits.

"""


def results_section(row, table):
    """`table` writes Markdown from a header and lines."""
    figures = [[domain, f"{perplexity:.2f}", f"{row['bits_per_byte'][domain]:.3f}"]
               for domain, perplexity in row["perplexity"].items()]
    layers = [[str(layer), f"{information:.3f}", f"{usage:.3f}"] for layer, (information, usage) in
              enumerate(zip(row["information_bits"], row["usage_entropy_bits"]))]
    trained = f"{row['parameters']:,} parameters, {row['tokens']:,} tokens, {row['cpu_seconds']:.0f} CPU seconds."
    return (RESULTS_TEXT + trained + "\n\n" + table(["text", "perplexity per token", "bits per byte"], figures) + "\n"
            + table(["layer", "I(expert; domain), bits", "entropy of usage, of 4 bits"], layers))
