// The node client's calls, their results as one line of JSON: node openai_node.mjs BASE_URL
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "any", maxRetries: 0 });
const messages = [{ role: "user", content: "Hello wörld" }];
const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];

const whole = await client.chat.completions.create({ model: "sandbox-chat", messages });
let streamed = "";
let finish = null;
for await (const chunk of await client.chat.completions.create({ model: "sandbox-chat", messages, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  finish = chunk.choices[0]?.finish_reason ?? finish;
}
const called = await client.chat.completions.create({ model: "sandbox-chat", messages, tools });
const packed = await client.embeddings.create({ model: "sandbox-embedding", input: ["one", "two"] });
const floats = await client.embeddings.create({
  model: "sandbox-embedding", input: ["one", "two"], encoding_format: "float",
});
const models = await client.models.list();

console.log(JSON.stringify({
  whole: whole.choices[0].message.content,
  streamed,
  finish,
  tool: called.choices[0].message.tool_calls[0].function.name,
  packed: packed.data.map((item) => Array.from(item.embedding)),
  floats: floats.data.map((item) => item.embedding),
  models: models.data.map((model) => model.id),
}));
