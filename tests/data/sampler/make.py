"""What core/sampler.c must keep of a distribution, computed in float64 without it: cases.json.

python3 make.py                 writes cases.json (needs numpy)
python3 make.py --transformers  also compares the steps with those of Hugging Face's generate()
"""

import argparse
import json
import pathlib

import numpy as np

DEFAULTS = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0,
            "frequency_penalty": 0.0, "presence_penalty": 0.0}


def penalized(logits, options, prompt, answer, biases):
    values = logits.astype(np.float64).copy()
    for token, bias in biases.items():
        values[int(token)] += bias
    for token in sorted(set(prompt) | set(answer)):
        r = options["repetition_penalty"]
        values[token] = values[token] / r if values[token] > 0 else values[token] * r
        count = answer.count(token)
        values[token] -= count * options["frequency_penalty"]
        values[token] -= options["presence_penalty"] * (count > 0)
    return values


def softmax(values):
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def distribution(values, options):
    """Probabilities after every filter; None where a filter's border is too near to call in float32."""
    values = values / options["temperature"]
    order = np.lexsort((np.arange(len(values)), -values))  # likeliest first, then lower ids
    if options["top_k"]:
        order = order[:options["top_k"]]
    p = softmax(values[order])
    before = np.concatenate([[0], np.cumsum(p)[:-1]])
    if options["top_p"] < 1:
        if np.abs(before[1:] - options["top_p"]).min(initial=1) < 1e-4:
            return None
        order = order[(before < options["top_p"]) | (np.arange(len(p)) == 0)]
        p = softmax(values[order])
    if options["min_p"]:
        if np.abs(p / p[0] - options["min_p"]).min() < 1e-5:
            return None
        order = order[p >= options["min_p"] * p[0]]
        p = softmax(values[order])
    return {int(token): float(q) for token, q in zip(order, p) if q > 1e-30}


def random_options(rng):
    options = dict(DEFAULTS)
    choices = {"temperature": [0.3, 0.7, 1.5, 2.0], "top_k": [1, 3, 20], "top_p": [0.1, 0.5, 0.9, 0.99],
               "min_p": [0.02, 0.2, 1.0], "repetition_penalty": [0.8, 1.3],
               "frequency_penalty": [-0.5, 0.7], "presence_penalty": [-1.0, 1.5]}
    for key, values in choices.items():
        if rng.random() < 0.4:
            options[key] = values[rng.integers(len(values))]
    return options


def make_case(rng):
    size = int(rng.choice([2, 7, 8, 33, 70]))
    logits = np.float32(np.round(rng.normal(0, rng.choice([0.5, 3.0, 20.0]), size), 3))
    if rng.random() < 0.3:  # ties
        logits = np.float32(np.round(logits))
    if rng.random() < 0.2:
        logits[rng.integers(1, size)] = -np.inf
    options = random_options(rng)
    prompt = [int(t) for t in rng.integers(0, size, rng.integers(0, 5))]
    answer = [int(t) for t in rng.integers(0, size, rng.integers(0, 8))]
    biases = {}
    if rng.random() < 0.3:
        biases = {str(int(t)): float(np.round(rng.normal(0, 5), 2)) for t in rng.integers(0, size, 3)}
    kept = distribution(penalized(logits, options, prompt, answer, biases), options)
    if kept is None:
        return None
    logsum = float(logits.max() + np.log(np.exp(logits.astype(np.float64) - logits.max()).sum()))
    return {"logits": [None if np.isinf(l) else float(l) for l in logits], "options": options,
            "prompt": prompt, "answer": answer, "biases": biases, "logsum": logsum,
            "kept": {str(token): float(f"{p:.9g}") for token, p in kept.items()}}


def compare_with_transformers(cases):
    import torch
    from transformers.generation import logits_process as lp
    for case in cases:
        logits = torch.tensor([[-np.inf if l is None else l for l in case["logits"]]], dtype=torch.float64)
        options, seen = case["options"], case["prompt"] + case["answer"]
        for token, bias in case["biases"].items():
            logits[0, int(token)] += bias
        if options["repetition_penalty"] != 1 and seen:
            logits = lp.RepetitionPenaltyLogitsProcessor(options["repetition_penalty"])(
                torch.tensor([seen]), logits)
        for token in set(case["answer"]):  # not Hugging Face's
            logits[0, token] -= case["answer"].count(token) * options["frequency_penalty"]
            logits[0, token] -= options["presence_penalty"]
        ids = torch.tensor([[0]])
        logits = lp.TemperatureLogitsWarper(options["temperature"])(ids, logits)
        if options["top_k"]:
            if len(set(case["logits"])) < len(case["logits"]):
                continue  # it keeps all of equal ones
            logits = lp.TopKLogitsWarper(options["top_k"])(ids, logits)
        if options["top_p"] < 1:
            if len(set(case["logits"])) < len(case["logits"]):
                continue  # its sort is free to order equal ones
            logits = lp.TopPLogitsWarper(options["top_p"])(ids, logits)
        if options["min_p"]:
            logits = lp.MinPLogitsWarper(options["min_p"])(ids, logits)
        p = torch.softmax(logits, -1)[0].numpy()
        wanted = np.zeros(len(p))
        for token, q in case["kept"].items():
            wanted[int(token)] = q
        np.testing.assert_allclose(p, wanted, rtol=1e-7, atol=1e-12, err_msg=str(case))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--transformers", action="store_true")
    arguments = parser.parse_args()
    rng = np.random.default_rng(7)
    cases = [case for case in (make_case(rng) for _ in range(200)) if case][:150]
    if arguments.transformers:
        compare_with_transformers(cases)
    path = pathlib.Path(__file__).with_name("cases.json")
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
