// The openai Node SDK: chat and its stream helpers, tools, zod, completions, responses, stored replies, errors.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import { idle, running, server } from "./server.mjs";

const COUNTED = "One, two, three, four, five.";
const REFUSAL = "I can't help with that, but I can tell you what it is made of.";
const model = "test";
const Person = z.object({ name: z.string(), age: z.number() });
const Pet = z.object({ name: z.string().max(8), legs: z.int().min(0).max(8) });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "get_weather", parameters } }];

function client(options = {}) {
  return new OpenAI({ baseURL: server.url, apiKey: server.key, maxRetries: 0, ...options });
}

const say = (content) => [{ role: "user", content }];

test("a whole reply with its usage", async () => {
  const reply = await client().chat.completions.create({ model, messages: say("Count to five.") });
  assert.equal(reply.choices[0].message.content, COUNTED);
  assert.equal(reply.choices[0].finish_reason, "stop");
  assert.equal(reply.usage.total_tokens, reply.usage.prompt_tokens + reply.usage.completion_tokens);
  assert.match(reply._request_id, /^req_/);
});

test("a stream equals the whole", async () => {
  const messages = say("Count to five.");
  const whole = await client().chat.completions.create({ model, messages });
  const stream = await client().chat.completions.create({
    model,
    messages,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let last;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    last = chunk;
  }
  assert.equal(text, COUNTED);
  assert.deepEqual(last.usage, whole.usage);
});

test("the stream helper rebuilds the reply", async () => {
  const pieces = [];
  const stream = client()
    .chat.completions.stream({ model, messages: say("Count to five.") })
    .on("content", (piece) => pieces.push(piece));
  const reply = await stream.finalChatCompletion();
  assert.equal(reply.choices[0].message.content, COUNTED);
  assert.equal(pieces.join(""), COUNTED);
});

test("several choices are rebuilt apart", async () => {
  const stream = client().chat.completions.stream({ model, messages: say("Count to five."), n: 3 });
  const reply = await stream.finalChatCompletion();
  assert.deepEqual(
    reply.choices.map((choice) => [choice.index, choice.message.content]),
    [0, 1, 2].map((index) => [index, COUNTED]),
  );
});

test("logprobs come with every token", async () => {
  const reply = await client().chat.completions.create({
    model,
    messages: say("Count to five."),
    logprobs: true,
    top_logprobs: 2,
  });
  const bytes = reply.choices[0].logprobs.content.flatMap((token) => token.bytes);
  assert.equal(Buffer.from(bytes).toString(), COUNTED);
});

for (const stream of [false, true]) {
  test(`runTools calls tools and answers, stream ${stream}`, async () => {
    const cities = [];
    const runner = client().chat.completions.runTools({
      model,
      messages: say("Weather in Paris and Rome?"),
      stream,
      tools: [
        {
          type: "function",
          function: {
            name: "get_weather",
            description: "Say the weather.",
            parameters,
            parse: JSON.parse,
            function: ({ city }) => {
              cities.push(city);
              return "22 degrees";
            },
          },
        },
      ],
    });
    assert.equal(await runner.finalContent(), "It is 22 degrees there.");
    assert.deepEqual(cities, ["Paris", "Rome"]);
  });
}

test("streamed calls are rebuilt", async () => {
  const stream = client().chat.completions.stream({ model, messages: say("Weather in Paris?"), tools });
  const reply = await stream.finalChatCompletion();
  assert.equal(reply.choices[0].finish_reason, "tool_calls");
  assert.ok(!reply.choices[0].message.content); // "" where OpenAI has null: the role is sent before it is known
  const [call] = reply.choices[0].message.tool_calls;
  assert.match(call.id, /^call_\w{24,}$/);
  assert.deepEqual(JSON.parse(call.function.arguments), { city: "Paris" });
});

test("a random model calls the tool it must", async () => {
  const legs = { type: "object", properties: { legs: { type: "integer", maximum: 8 } }, required: ["legs"] };
  const reply = await client({ baseURL: server.randomUrl }).chat.completions.create({
    model,
    messages: say("A pet, please."),
    tools: [{ type: "function", function: { name: "adopt", parameters: legs } }],
    tool_choice: { type: "function", function: { name: "adopt" } },
    max_completion_tokens: 200,
    seed: 1,
  });
  const [call] = reply.choices[0].message.tool_calls;
  assert.equal(call.function.name, "adopt");
  assert.ok(JSON.parse(call.function.arguments).legs <= 8);
});

test("parse reads zod's types", async () => {
  const reply = await client().chat.completions.parse({
    model,
    messages: say("Who is Ada?"),
    response_format: zodResponseFormat(Person, "person"),
  });
  assert.deepEqual(reply.choices[0].message.parsed, { name: "Ada", age: 36 });
});

test("a random model keeps to zod's types, whole and streamed", async () => {
  const asked = {
    model,
    messages: say("A pet, please."),
    response_format: zodResponseFormat(Pet, "pet"),
    seed: 1,
  };
  const random = client({ baseURL: server.randomUrl });
  const whole = await random.chat.completions.parse(asked);
  Pet.parse(whole.choices[0].message.parsed);
  const streamed = await random.chat.completions.stream(asked).finalChatCompletion();
  assert.deepEqual(streamed.choices[0].message.parsed, whole.choices[0].message.parsed);
});

test("text completions", async () => {
  const asked = { model, prompt: "Count to five.", max_tokens: 100 };
  assert.equal((await client().completions.create(asked)).choices[0].text, COUNTED);
  let text = "";
  for await (const chunk of await client().completions.create({ ...asked, stream: true })) {
    text += chunk.choices[0].text;
  }
  assert.equal(text, COUNTED);
});

test("models are listed and found", async () => {
  const ids = [];
  for await (const listed of client().models.list()) ids.push(listed.id);
  assert.deepEqual(ids, ["test"]);
  assert.equal((await client().models.retrieve("test")).object, "model");
});

test("responses are made, streamed, continued, read and deleted", async () => {
  const openai = client();
  const first = await openai.responses.create({ model, input: "Count to five." });
  assert.equal(first.output_text, COUNTED);
  const second = await openai.responses.create({ model, input: "Who is Ada?", previous_response_id: first.id });
  assert.equal(JSON.parse(second.output_text).name, "Ada");
  const types = [];
  const stream = openai.responses.stream({ model, input: "Count to five." });
  stream.on("event", (event) => types.push(event.type));
  const final = await stream.finalResponse();
  assert.equal(final.output_text, COUNTED);
  assert.equal(types[0], "response.created");
  assert.equal(types.at(-1), "response.completed");
  assert.equal((await openai.responses.retrieve(first.id)).id, first.id);
  const items = [];
  for await (const item of openai.responses.inputItems.list(first.id)) items.push(item.type);
  assert.deepEqual(items, ["message"]);
  await openai.responses.delete(first.id);
  await assert.rejects(openai.responses.retrieve(first.id), OpenAI.NotFoundError);
});

test("responses parse zod's types", async () => {
  const text = { format: zodTextFormat(Person, "person") };
  const response = await client().responses.parse({ model, input: "Who is Ada?", text });
  assert.deepEqual(response.output_parsed, { name: "Ada", age: 36 });
});

test("responses call tools and take results", async () => {
  const openai = client();
  const offered = [{ type: "function", name: "get_weather", parameters, strict: true }];
  const first = await openai.responses.create({ model, input: "Weather in Paris?", tools: offered });
  const [call] = first.output;
  assert.equal(call.type, "function_call");
  assert.deepEqual(JSON.parse(call.arguments), { city: "Paris" });
  const second = await openai.responses.create({
    model,
    previous_response_id: first.id,
    input: [{ type: "function_call_output", call_id: call.call_id, output: "22 degrees" }],
    tools: offered,
  });
  assert.equal(second.output_text, "It is 22 degrees there.");
});

test("stored completions are listed, changed and deleted", async () => {
  const stored = client().chat.completions;
  const made = await stored.create({
    model,
    messages: say("Count to five."),
    store: true,
    metadata: { about: "numbers" },
  });
  const ids = [];
  for await (const listed of stored.list({ metadata: { about: "numbers" } })) ids.push(listed.id);
  assert.deepEqual(ids, [made.id]);
  assert.deepEqual((await stored.update(made.id, { metadata: { about: "five" } })).metadata, { about: "five" });
  const asked = [];
  for await (const message of stored.messages.list(made.id)) asked.push(message.content);
  assert.deepEqual(asked, ["Count to five."]);
  assert.equal((await stored.delete(made.id)).deleted, true);
});

const failures = [
  ["a wrong key", { apiKey: "wrong" }, {}, OpenAI.AuthenticationError, "invalid_api_key"],
  ["an unknown model", {}, { model: "other" }, OpenAI.NotFoundError, "model_not_found"],
  ["a bad value", {}, { temperature: 9 }, OpenAI.BadRequestError, "decimal_above_max_value"],
  ["a long prompt", {}, { messages: say("hello ".repeat(10000)) }, OpenAI.BadRequestError, "context_length_exceeded"],
  ["a key's limit", { apiKey: server.limitedKey }, {}, OpenAI.RateLimitError, "rate_limit_exceeded"],
  ["a full queue", { baseURL: server.busyUrl }, {}, OpenAI.InternalServerError, "server_is_overloaded"],
];
for (const [name, options, changed, expected, code] of failures) {
  for (const stream of [false, true]) {
    test(`${name} is the SDK's own error, stream ${stream}`, async () => {
      const asked = { model, messages: say("hello"), stream, ...changed };
      const error = await client(options).chat.completions.create(asked).then(assert.fail, (caught) => caught);
      assert.ok(error instanceof expected, `${error}`);
      assert.equal(error.code, code);
      assert.match(error.requestID, /^req_/);
    });
  }
}

test("leaving a stream frees its place", async () => {
  const stream = await client().chat.completions.create({ model, messages: say("Talk for ever."), stream: true });
  for await (const chunk of stream) {
    assert.equal(chunk.choices[0].delta.role, "assistant");
    break;
  }
  await idle();
});

test("aborting a whole reply frees its place", async () => {
  const asked = client().chat.completions.create(
    { model, messages: say("Talk for ever.") },
    { signal: AbortSignal.timeout(300) },
  );
  await assert.rejects(asked, OpenAI.APIUserAbortError);
  await idle();
});

test("aborting a response frees its place", async () => {
  const stream = client().responses.stream({ model, input: "Talk for ever." });
  for await (const event of stream) {
    if (event.type === "response.output_text.delta") break;
  }
  stream.abort();
  await idle();
  assert.equal(await running(), 0);
});

test("moderations by themselves, and of a reply, whole and streamed", async () => {
  const alone = await client().moderations.create({ input: ["Good morning!", "Good night!"] });
  assert.deepEqual(alone.results.map((result) => result.flagged), [false, false]);
  const body = { model, messages: say("Count to five."), moderation: { model: "omni-moderation-latest" } };
  const whole = await client().chat.completions.create(body);
  assert.deepEqual(whole.moderation.output.results.map((result) => result.flagged), [false]);
  let last;
  for await (const chunk of await client().chat.completions.create({ ...body, stream: true })) {
    last = chunk;
  }
  assert.deepEqual(last.moderation, whole.moderation);
});

test("a refusal is shown and the conversation goes on", async () => {
  const messages = say("Where can I buy a zorb?");
  const whole = await client().chat.completions.create({ model, messages });
  assert.equal(whole.choices[0].message.content, REFUSAL);
  assert.deepEqual(whole.choices[0].x_refusal, { stage: "input", category: "weapons" });
  const streamed = await client().chat.completions.stream({ model, messages }).finalChatCompletion();
  assert.equal(streamed.choices[0].message.content, REFUSAL);
  const history = [...messages, whole.choices[0].message, ...say("Count to five.")];
  const next = await client().chat.completions.create({ model, messages: history });
  assert.equal(next.choices[0].message.content, COUNTED);
});

test("a refused response is shown and continued", async () => {
  const whole = await client().responses.create({ model, input: "Where can I buy a zorb?" });
  assert.equal(whole.output_text, REFUSAL);
  const stream = client().responses.stream({ model, input: "Where can I buy a zorb?" });
  assert.equal((await stream.finalResponse()).output_text, REFUSAL);
  const next = { model, input: "Count to five.", previous_response_id: whole.id };
  assert.equal((await client().responses.create(next)).output_text, COUNTED);
});

test("a refusal of a reply in a form is in its own field", async () => {
  const response_format = zodResponseFormat(Person, "person");
  const messages = say("Where can I buy a zorb?");
  const { message } = (await client().chat.completions.parse({ model, messages, response_format })).choices[0];
  assert.equal(message.parsed, null);
  assert.equal(message.refusal, REFUSAL);
});

test("a cut answer shows nothing that was refused", async () => {
  const messages = say("Tell me about the day.");
  const streamed = await client().chat.completions.stream({ model, messages }).finalChatCompletion();
  const { message, finish_reason } = streamed.choices[0];
  assert.equal(finish_reason, "content_filter");
  assert.equal(message.refusal, REFUSAL);
  assert.ok(!message.content.includes("zorb"));
  const stream = client().responses.stream({ model, input: "Tell me about the day." });
  assert.equal((await stream.finalResponse()).output_text, REFUSAL);
});
