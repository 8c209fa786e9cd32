"""Writes a checkpoint's model card: what it is, how it was made, what was measured on the stored weights."""

import os


def percent(fraction):
    return f"{100 * fraction:.2f} %"


def percents(fractions):
    return ", ".join(f"{100 * fraction:.1f} %" for fraction in fractions)


def write(directory, about, data, command, row):
    """README.md in `directory`. `row` is the recipe's results row; `about` and `data` are a sentence or two each."""
    facts = {
        "Data": data,
        "Made by": f"`{command}`",
        "Trained": f"{row['epochs']} epochs, seed {row['seed']}, {row['threads']} CPU thread(s), PyTorch {row['torch']}",
        "Weights": f"{row['parameters']:,} stored as {row['dtype']}",
        "Test accuracy": f"{percent(1 - row['test_error'])} ({percent(1 - row['test_error_f32'])} before rounding to "
                         f"{row['dtype']})",
        "Training accuracy": percent(1 - row["train_error"]),
        "Experts": f"{row['experts']}, {row['top_k']} per row",
        "First choice, by expert": percents(row["first_choice"]),
        "Rows served, by expert": percents(row["share"]),
        "H_s, gate entropy": f"{row['gate_entropy_bits']:.3f} bits (0: every choice is certain)",
        "H_u, usage entropy": f"{row['usage_entropy_bits']:.3f} bits (at most log2 {row['experts']})",
        "I(E;Y), specialisation": f"{row['mutual_information_bits']:.3f} bits",
    }
    name = os.path.basename(os.path.abspath(directory))
    table = "".join(f"| {key} | {value} |\n" for key, value in facts.items())
    text = f"# {name}\n\n{about}\n\n| | |\n|---|---|\n{table}\nAccuracy and routing were measured on the weights as " \
           "stored, on all test images.\n"
    with open(os.path.join(directory, "README.md"), "w", encoding="utf-8") as file:
        file.write(text)
