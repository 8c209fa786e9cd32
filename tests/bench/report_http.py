"""The tables of what bench_http.py measured."""

from bench import figure, ratio, spread, table


def _throughput(result):
    found = {(run["model"], run["format"], run["connections"], run["contender"]): run for run in result["runs"]}
    rows = []
    for (model, name, connections, contender), run in found.items():
        ours = found[model, name, connections, "moed"]["per_second"]
        times = "" if contender == "moed" else spread(ratio(ours, run["per_second"]))
        rows.append([model, name, connections, contender, spread(run["per_second"]), times, spread(run["p50_us"]),
                     spread(run["p99_us"]), spread(run["p999_us"]), figure(run["cpu_us"]["median"])])
    return table(["model", "format", "connections", "server", "requests/s", "moed / it", "p50 us", "p99 us", "p99.9 us",
                  "CPU us each"],
                 rows)


def _batches(result):
    rows = []
    for point in result["batches"]:
        buckets = dict(point["buckets"])
        count, total = buckets.pop("count"), buckets.pop("sum")
        shares, below = [], 0.0
        for bound, cumulative in buckets.items():
            if cumulative > below:
                shares.append(f"<={bound}: {100 * (cumulative - below) / count:.0f} %")
            below = cumulative
        rows.append([point["model"], point["format"], point["connections"], figure(total / count), ", ".join(shares)])
    return table(["model", "format", "connections", "mean rows", "share of batches by rows"], rows)


def _half(result):
    rows = []
    for point in result["half"]:
        delays = [spread(point[key]) for key in ("p50_us", "p99_us", "p999_us")]
        rows.append([point["model"], point["format"], point["contender"], spread(point["per_second"]),
                     f"{100 * point['share']['median']:.0f} %", *delays])
    return table(["model", "format", "server", "requests/s", "of moed's most", "p50 us", "p99 us", "p99.9 us"], rows)


def _whole(result):
    found = {}
    for run in result["runs"]:
        found.setdefault((run["model"], run["format"], run["connections"]), {})[run["contender"]] = run["per_second"]
    rows = []
    for key, of in found.items():
        others = [of.get(name) for name in ("ceiling", "FastAPI")]
        rows.append([*key, *(spread(speed) if speed else "" for speed in (of["moed"], *others)),
                     *(spread(ratio(of["moed"], other)) if other else "" for other in others)])
    return table(["model", "format", "connections", "moed requests/s", "ceiling", "FastAPI", "moed / ceiling",
                  "moed / FastAPI"], rows)


def report(result):
    idle = [[point["model"], point["format"], point["contender"], spread(point["us"])] for point in result["idle"]]
    loops = len(result["whole"]["cpus"])
    return f"""## HTTP

One row (an image, a vector, a person) per request; servers on CPU {result['server_cpus']}, wrk on {result['wrk_cpus']};
median (lowest-highest). "ceiling" is the server's own HTTP layer, which reads the same request and answers a constant of
the same length.

{_throughput(result)}
### The whole machine

Nobody is kept to some CPUs: wrk, with {loops} threads, and the server share CPU {result['whole']['cpus']}. moed runs with
`--loops {loops}` and the ceiling with as many loops; FastAPI is one process.

{_whole(result["whole"])}
### Alone: single requests with pauses of 10 ms, p50

{table(["model", "format", "server", "us"], idle)}
### At half load: 256 connections with random pauses

The ceiling gets the same load: what it shows is the machine's share of the delay, and that of HTTP. wrk's pauses are
whole milliseconds, so the requests come in bursts at every millisecond, which the delays include.

{_half(result)}
### Batches

{_batches(result)}"""
