// Asks served flows by OpenAI's client for Node, and prints what it got: node ask.mjs ADDRESS
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none" });
const user = (content) => [{ role: "user", content }];
const found = {};

found.models = [];
for await (const model of client.models.list()) found.models.push(model.id);

const whole = await client.chat.completions.create({ model: "parrot", messages: user("hi") });
found.whole = [whole.choices[0].message.content, whole.usage.total_tokens, whole.choices[0].finish_reason];
found.run = whole._request_id === whole.flowrun.run;

const stream = await client.chat.completions.create({
  model: "weather",
  messages: user("Is it warm?"),
  stream: true,
  stream_options: { include_usage: true },
});
found.stream = ["", null, null];
for await (const chunk of stream) {
  found.stream[0] += chunk.choices[0]?.delta.content ?? "";
  found.stream[1] ??= chunk.choices[0]?.finish_reason ?? null;
  found.stream[2] ??= chunk.usage?.total_tokens ?? null;
}

const helper = client.chat.completions.stream({ model: "parrot", messages: user("you") });
found.helper = (await helper.finalChatCompletion()).choices[0].message.content;

found.errors = {};
for (const [name, asked] of Object.entries({
  temperature: { model: "parrot", messages: user("hi"), temperature: 0 },
  nothing: { model: "nothing", messages: user("hi") },
  fails: { model: "fails", messages: user("bake") },
})) {
  try {
    await client.chat.completions.create(asked);
  } catch (error) {
    found.errors[name] = [error.constructor.name, error.status, error.code, error.param];
  }
}
const texts = [];
try {
  for await (const chunk of await client.chat.completions.create({
    model: "fails",
    messages: user("bake"),
    stream: true,
  }))
    texts.push(chunk.choices[0].delta.content);
} catch (error) {
  found.errors.stream = [texts.join(""), error.constructor.name, error.code];
}

console.log(JSON.stringify(found));
