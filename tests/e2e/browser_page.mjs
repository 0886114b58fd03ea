// What the tests let a page do; the recipe's modules are the code of docs/recipes/browser.md, word for word.
import { askAsEvents, streamChat } from "./recipe.mjs";

const messages = [{ role: "user", content: "Hello wörld" }];
let reading; // a stream that the page has begun and goes on with when it is told to
let controller;

async function texts(stream) {
  const texts = [];
  for await (const text of stream) texts.push(text);
  return texts;
}

window.calls = {
  /** The whole answer as it came, and the field that another origin may read. */
  async raw(base, key) {
    const answer = await fetch(`${base}/chat/completions`, {
      method: "POST",
      headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
      body: JSON.stringify({ model: "sandbox-chat", messages, stream: true }),
    });
    return { status: answer.status, requestId: answer.headers.get("X-Request-Id"), text: await answer.text() };
  },
  stream: (base, key) => texts(streamChat(base, key, { model: "sandbox-chat", messages })),
  events: (base, key) => texts(askAsEvents(base, key, { model: "sandbox-chat", messages })),
  async client(base, key) {
    const { askWithClient } = await import("./recipe_client.mjs"); // two hundred files, which only this needs
    return texts(askWithClient(base, key, { model: "sandbox-chat", messages }));
  },

  /** The first text of a stream that is then left open. */
  async begin(base, key) {
    controller = new AbortController();
    reading = streamChat(base, key, { model: "sandbox-chat", messages }, controller.signal);
    return (await reading.next()).value;
  },
  abort: () => controller.abort(),
};
