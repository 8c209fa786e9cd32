-- wrk: posts one body again and again; says at the end what bench_http.py wants to know, as JSON.
local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
local json_length = os.getenv("BENCH_JSON_LENGTH")
if json_length then
    wrk.headers["Inference-Header-Content-Length"] = json_length
    wrk.headers["Content-Type"] = "application/octet-stream"
else
    wrk.headers["Content-Type"] = "application/json"
end

-- Milliseconds that each connection waits before a request: less than all the load the server takes.
local pause = tonumber(os.getenv("BENCH_PAUSE_MS") or "0")
if pause > 0 then
    function delay()
        return math.random(0, math.floor(2 * pause))
    end
end

function done(summary, latency)
    local errors = summary.errors
    print(string.format(
        '\n{"requests": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "p999_us": %d, "failed": %d}',
        summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
        latency:percentile(99.9),
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
