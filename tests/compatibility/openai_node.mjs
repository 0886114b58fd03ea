// The node client's calls; prints a JSON object with "pass" or what went wrong for each.
// node openai_node.mjs API GUARDED SANDBOX: base URLs of a proxy, of one with client keys, and of the upstream itself.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import OpenAI, { toFile } from "openai";

const [api, guarded, sandbox] = process.argv.slice(2);
const client = new OpenAI({ baseURL: api, apiKey: "any", maxRetries: 0 });
const model = "m";
const messages = [{ role: "user", content: "Hello wörld" }];
const parameters = { type: "object", properties: { city: { type: "string" }, days: { type: "integer" } } };
const tools = ["time", "weather"].map((name) => ({ type: "function", function: { name, parameters } }));
const tool_choice = { type: "function", function: { name: "weather" } };

const control = (path, options) => fetch(`${sandbox}/_sandbox${path}`, options).then((answer) => answer.text());
const lastRequest = async () => JSON.parse(await control("/log")).filter((entry) => entry.kind === "upstream").at(-1);
const lastBody = async () => Buffer.from((await lastRequest()).body, "base64");
const faults = (...upstream) => control("/faults", { method: "PUT", body: JSON.stringify({ upstream }) });
const all = async (stream) => {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
};
const vectors = async (options) =>
  (await client.embeddings.create({ model, ...options })).data.map((item) => Array.from(item.embedding));
const areClose = (some, others) => {
  assert.equal(some.length, others.length);
  for (const [i, value] of some.flat().entries()) assert.ok(Math.abs(value - others.flat()[i]) < 1e-6);
};
const refused = (call, kind, members) =>
  assert.rejects(call, (error) => {
    assert.ok(error instanceof kind, `${error}`);
    for (const [name, value] of Object.entries(members)) assert.equal(error[name], value);
    return true;
  });

const calls = {
  async chat() {
    const answer = await client.chat.completions.create({ model, messages });
    assert.match(answer.choices[0].message.content, /Hello wörld/);
  },
  async stream() {
    const whole = await client.chat.completions.create({ model, messages });
    const options = { model, messages, stream: true, stream_options: { include_usage: true } };
    const chunks = await all(await client.chat.completions.create(options));
    const text = chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join("");
    assert.equal(text, whole.choices[0].message.content);
    assert.equal(chunks.at(-2).choices[0].finish_reason, "stop");
    assert.ok(chunks.at(-1).usage.total_tokens > 0);
  },
  async tools() {
    const whole = await client.chat.completions.create({ model, messages, tools, tool_choice });
    const streamed = client.chat.completions.stream({ model, messages, tools, tool_choice });
    for (const answer of [whole, await streamed.finalChatCompletion()]) {
      const [call] = answer.choices[0].message.tool_calls;
      assert.equal(call.function.name, "weather");
      assert.deepEqual(JSON.parse(call.function.arguments), { city: "You said: Hello wörld", days: 1 });
    }
  },
  async "structured output"() {
    const response_format = { type: "json_schema", json_schema: { name: "trip", schema: parameters } };
    const answer = await client.chat.completions.create({ model, messages, response_format });
    assert.deepEqual(JSON.parse(answer.choices[0].message.content), { city: "You said: Hello wörld", days: 1 });
  },
  async "embeddings (floats)"() {
    const [one, two] = await vectors({ input: ["one", "two"], encoding_format: "float" });
    assert.deepEqual([one.length, two.length], [8, 8]);
    assert.notDeepEqual(one, two);
  },
  async "embeddings (base64)"() {
    const floats = await vectors({ input: ["one", "two"], encoding_format: "float" });
    areClose(await vectors({ input: ["one", "two"] }), floats); // the client asks for base64 and unpacks it
    await faults({ kind: "ignore_base64" });
    const packed = await client.embeddings.create({ model, input: ["one", "two"], encoding_format: "base64" });
    const unpack = (text) => Array.from(new Float32Array(Uint8Array.from(Buffer.from(text, "base64")).buffer));
    areClose(packed.data.map((item) => unpack(item.embedding)), floats); // older clients read whatever comes so
    areClose(await vectors({ input: ["one", "two"] }), floats);
  },
  async "token arrays"() {
    assert.equal((await vectors({ input: [[1, 2], [3]] })).length, 2);
    assert.deepEqual(JSON.parse(await lastBody()).input, [[1, 2], [3]]);
  },
  async "vision parts"() {
    const picture = { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw0KGgo=", detail: "low" } };
    const content = [{ type: "text", text: "What is it?" }, picture];
    await client.chat.completions.create({ model, messages: [{ role: "user", content }] });
    assert.deepEqual(JSON.parse(await lastBody()).messages[0].content, content);
  },
  async errors() {
    const ask = (apiKey, members) =>
      new OpenAI({ baseURL: guarded, apiKey, maxRetries: 0 }).chat.completions.create({ model, messages, ...members });
    await refused(ask("wrong"), OpenAI.AuthenticationError, { status: 401, code: "invalid_api_key" });
    await refused(ask("key-some"), OpenAI.PermissionDeniedError, { status: 403, code: "model_not_allowed" });
    await refused(ask("key-all", { model: "x" }), OpenAI.NotFoundError, { status: 404, code: "model_not_found" });
    await refused(ask("key-all", { model: "" }), OpenAI.BadRequestError, { status: 400, code: "invalid_request" });
    await faults({ kind: "status", status: 500, body: '{"error": {"message": "broken", "code": "x"}}' });
    await refused(client.chat.completions.create({ model, messages }), OpenAI.InternalServerError, { code: "x" });
    await faults({ kind: "status", status: 429, headers: { "Retry-After": "7" } });
    await assert.rejects(client.chat.completions.create({ model, messages }), (error) => {
      assert.ok(error instanceof OpenAI.RateLimitError);
      return error.headers.get("Retry-After") === "7";
    });
    await faults({ kind: "cut", frames: 3 });
    const broken = await client.chat.completions.create({ model, messages, stream: true });
    await assert.rejects(all(broken), /broke off/);
  },
  async cancel() {
    const slow = { model, messages, stream: true, sandbox_frames: 10000, sandbox_interval_ms: 20 };
    for await (const _ of await client.chat.completions.create(slow)) break;
    while (JSON.parse(await control("/state")).open) await pause(10);
    assert.equal((await lastRequest()).end, "caller_gone");
  },
  async retries() {
    await faults({ kind: "status", status: 503, times: 1 });
    const answer = await client.chat.completions.create({ model, messages }, { maxRetries: 1 });
    assert.match(answer.choices[0].message.content, /Hello/);
  },
  async completions() {
    const whole = await client.completions.create({ model, prompt: "Hello" });
    const chunks = await all(await client.completions.create({ model, prompt: "Hello", stream: true }));
    assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(""), whole.choices[0].text);
  },
  async responses() {
    const whole = await client.responses.create({ model, input: "Hello" });
    const events = await all(await client.responses.create({ model, input: "Hello", stream: true }));
    const deltas = events.filter((event) => event.type === "response.output_text.delta");
    assert.equal(deltas.map((event) => event.delta).join(""), whole.output_text);
    assert.deepEqual([events[0].type, events.at(-1).type], ["response.created", "response.completed"]);
  },
  async moderations() {
    const { results } = await client.moderations.create({ model, input: ["a", "b"] });
    assert.deepEqual(results.map((result) => result.flagged), [false, false]);
  },
  async images() {
    const { data } = await client.images.generate({ model, prompt: "grey" });
    assert.match(data[0].b64_json, /^iVBORw0K/);
  },
  async speech() {
    const speech = await client.audio.speech.create({ model, voice: "x", input: "Hello" });
    const hash = createHash("sha256");
    for await (const piece of speech.body) hash.update(piece);
    assert.equal(hash.digest("hex"), (await lastRequest()).answer_sha256);
  },
  async uploads() {
    const sound = Buffer.alloc(300_000, 7);
    for (const kind of ["transcriptions", "translations"]) {
      const { text } = await client.audio[kind].create({ model, file: await toFile(sound, "a.wav") });
      assert.match(text, /^The sandbox heard 300\d\d\d bytes/);
      assert.ok((await lastBody()).includes(sound));
    }
  },
  async models() {
    assert.ok((await all(await client.models.list())).some((each) => each.id === "sandbox-chat"));
    assert.equal((await client.models.retrieve("sandbox-chat")).context_window, 128000);
    await refused(client.models.retrieve("no-such-model"), OpenAI.NotFoundError, { status: 404 });
  },
};

const results = {};
for (const [name, call] of Object.entries(calls)) {
  await control("/reset", { method: "POST" });
  results[name] = await call().then(() => "pass", (error) => `${error.stack}`);
}
console.log(JSON.stringify(results));
