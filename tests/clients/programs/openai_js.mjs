// OpenAI's JavaScript client: answers at once, streams, a stream that is aborted, errors.
import assert from "node:assert";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.env.MOED_NODE_MODULES + "/");
const OpenAI = require("openai");
const client = new OpenAI.OpenAI({ baseURL: process.env.MOED_HTTP + "/v1", apiKey: "none", maxRetries: 0 });
const model = "tiny-lm";
const messages = [{ role: "user", content: "What is a hacker?" }];
const sampling = { model, max_tokens: 12, seed: 1 };

const completion = await client.completions.create({ ...sampling, prompt: "Emma was", logprobs: 2 });
assert.equal(completion.usage.completion_tokens, 12);
assert.equal(completion.choices[0].logprobs.tokens.length, 12);

let text = "";
for await (const chunk of await client.completions.create({ ...sampling, prompt: "Emma was", stream: true }))
    text += chunk.choices[0]?.text ?? "";
assert.equal(text, completion.choices[0].text);

const chat = await client.chat.completions.create({ ...sampling, messages });
let said = "", usage = null;
const options = { ...sampling, messages, stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create(options)) {
    said += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
}
assert.equal(said, chat.choices[0].message.content);
assert.equal(usage.completion_tokens, chat.usage.completion_tokens);
const runner = client.chat.completions.stream({ ...sampling, messages });
assert.equal(await runner.finalContent(), said);

const endless = await client.completions.create(
    { model, prompt: "Emma was", max_tokens: 200, ignore_eos: true, stream: true });
let events = 0;
for await (const chunk of endless)
    if (++events === 3)
        endless.controller.abort();
assert.equal(events, 3);
const controller = new AbortController();
const waiting = client.completions.create({ model, prompt: "Emma was", max_tokens: 200, ignore_eos: true },
    { signal: controller.signal });
controller.abort();
await assert.rejects(waiting, OpenAI.OpenAI.APIUserAbortError);

await assert.rejects(client.completions.create({ model, prompt: "a", temperature: 3 }),
    error => error instanceof OpenAI.OpenAI.BadRequestError && error.param === "temperature");
await assert.rejects(client.completions.create({ model: "nobody", prompt: "a" }), OpenAI.OpenAI.NotFoundError);

const names = [];
for await (const entry of client.models.list())
    names.push(entry.id);
assert.ok(names.includes(model));
assert.equal((await client.models.retrieve(model)).id, model);
const version = JSON.parse(readFileSync(process.env.MOED_NODE_MODULES + "/openai/package.json")).version;
console.log(`${version}, node ${process.versions.node}|completions and chats at once and as streams, the stream helper, ` +
    "two aborts, errors, models");
