"""Writes a checkpoint's model card: what it is, how it was made, what was measured on the stored weights."""

import os


def percent(fraction):
    return f"{100 * fraction:.2f} %"


def percents(fractions):
    return ", ".join(f"{100 * fraction:.1f} %" for fraction in fractions)


def origin(data, command, row, model, dtype):
    """The facts with which every card begins. `row` is the results row of the training."""
    numbers = sum(tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
    return {"Data": data, "Made by": f"`{command}`",
            "Trained": f"{row['epochs']} epochs, seed {row['seed']}, {row['threads']} CPU thread(s), "
                       f"PyTorch {row['torch']}",
            "Weights": f"{numbers:,} stored as {dtype}"}


def accuracy(stored_error, f32_error, train_error, dtype):
    rounding = "" if dtype == "f32" else f" ({percent(1 - f32_error)} before rounding to {dtype})"
    return {"Test accuracy": percent(1 - stored_error) + rounding, "Training accuracy": percent(1 - train_error)}


def routing(figures, experts, top_k):
    """`figures` are training.evaluate's of the stored weights."""
    return {"Experts": f"{experts}, {top_k} per row",
            "First choice, by expert": percents(figures["first_choice"]),
            "Rows served, by expert": percents(figures["share"]),
            "H_s, gate entropy": f"{figures['gate_entropy_bits']:.3f} bits (0: every choice is certain)",
            "H_u, usage entropy": f"{figures['usage_entropy_bits']:.3f} bits (at most log2 {experts})",
            "I(E;Y), specialisation": f"{figures['mutual_information_bits']:.3f} bits"}


def write(directory, about, facts, closing):
    """README.md in `directory`: a sentence or two, a table of facts, and what else is to be said."""
    name = os.path.basename(os.path.abspath(directory))
    table = "".join(f"| {key} | {value} |\n" for key, value in facts.items())
    with open(os.path.join(directory, "README.md"), "w", encoding="utf-8") as file:
        file.write(f"# {name}\n\n{about}\n\n| | |\n|---|---|\n{table}\n{closing}\n")
