// The Vercel ai-sdk: its provider for OpenAI-compatible servers, and OpenAI's own on chat and on responses.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";

import { idle, server } from "./server.mjs";

const COUNTED = "One, two, three, four, five.";
const REFUSAL = "I can't help with that, but I can tell you what it is made of.";
const BEGINNING = "All is well, and it is a fine day for a "; // what is shown before the answer is refused
const Person = z.object({ name: z.string(), age: z.number() });
const Pet = z.object({ name: z.string().max(8), legs: z.int().min(0).max(8) });

function compatible({ baseURL = server.url, apiKey = server.key, model = "test" } = {}) {
  const options = { includeUsage: true, supportsStructuredOutputs: true };
  return createOpenAICompatible({ name: "turnwise", baseURL, apiKey, ...options })(model);
}

function chat({ baseURL = server.url, apiKey = server.key, model = "test" } = {}) {
  return createOpenAI({ baseURL, apiKey }).chat(model);
}

function responses({ baseURL = server.url, apiKey = server.key, model = "test" } = {}) {
  return createOpenAI({ baseURL, apiKey }).responses(model);
}

function weather(cities) {
  return tool({
    description: "Say the weather.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      cities.push(city);
      return "22 degrees";
    },
  });
}

for (const [name, model] of Object.entries({ compatible, chat, responses })) {
  describe(name, () => {
    test(`${name}: generateText with its usage`, async () => {
      const reply = await generateText({ model: model(), prompt: "Count to five.", maxRetries: 0 });
      assert.equal(reply.text, COUNTED);
      assert.equal(reply.finishReason, "stop");
      assert.equal(reply.usage.totalTokens, reply.usage.inputTokens + reply.usage.outputTokens);
      assert.equal(reply.warnings?.length ?? 0, 0, JSON.stringify(reply.warnings));
    });

    test(`${name}: a refusal is shown and the conversation goes on`, async () => {
      const prompt = "Where can I buy a zorb?";
      const whole = await generateText({ model: model(), prompt, maxRetries: 0 });
      assert.equal(whole.text, REFUSAL);
      assert.equal(await streamText({ model: model(), prompt, onError: assert.fail }).text, REFUSAL);
      const messages = [
        { role: "user", content: prompt },
        ...whole.response.messages,
        { role: "user", content: "Count to five." },
      ];
      assert.equal((await generateText({ model: model(), messages })).text, COUNTED);
    });

    test(`${name}: a cut answer shows nothing that was refused`, async () => {
      const prompt = "Tell me about the day.";
      const whole = await generateText({ model: model(), prompt, maxRetries: 0 });
      const stream = streamText({ model: model(), prompt, onError: assert.fail });
      assert.deepEqual([whole.text, whole.finishReason], [REFUSAL, "content-filter"]);
      assert.deepEqual([await stream.text, await stream.finishReason], [BEGINNING + REFUSAL, "content-filter"]);
    });

    test(`${name}: streamText equals the whole`, async () => {
      const whole = await generateText({ model: model(), prompt: "Count to five." });
      const stream = streamText({ model: model(), prompt: "Count to five.", onError: assert.fail });
      const pieces = [];
      for await (const piece of stream.textStream) pieces.push(piece);
      assert.equal(pieces.join(""), COUNTED);
      assert.ok(pieces.length > 5);
      assert.equal(await stream.finishReason, "stop");
      const usage = await stream.usage;
      assert.deepEqual(
        [usage.inputTokens, usage.outputTokens],
        [whole.usage.inputTokens, whole.usage.outputTokens],
      );
    });

    test(`${name}: a conversation goes on`, async () => {
      const first = await generateText({ model: model(), prompt: "Count to five." });
      const reply = await generateText({
        model: model(),
        instructions: "Be brief.",
        messages: [
          { role: "user", content: "Count to five." },
          ...first.response.messages,
          { role: "user", content: "Who is Ada?" },
        ],
      });
      assert.equal(JSON.parse(reply.text).name, "Ada");
    });

    for (const [prompt, expected] of [
      ["Weather in Paris?", ["Paris"]],
      ["Weather in Paris and Rome?", ["Paris", "Rome"]],
    ]) {
      test(`${name}: generateText calls tools: ${prompt}`, async () => {
        const cities = [];
        const tools = { get_weather: weather(cities) };
        const reply = await generateText({ model: model(), prompt, tools, stopWhen: isStepCount(3) });
        assert.equal(reply.text, "It is 22 degrees there.");
        assert.equal(reply.steps[0].finishReason, "tool-calls");
        assert.deepEqual(cities.sort(), expected);
      });

      test(`${name}: streamText calls tools: ${prompt}`, async () => {
        const cities = [];
        const tools = { get_weather: weather(cities) };
        const stream = streamText({
          model: model(),
          prompt,
          tools,
          stopWhen: isStepCount(3),
          onError: assert.fail,
        });
        await stream.consumeStream();
        assert.equal(await stream.text, "It is 22 degrees there.");
        assert.deepEqual(cities.sort(), expected);
      });
    }

    test(`${name}: Output.object reads what was said, whole and streamed`, async () => {
      const asked = { model: model(), prompt: "Who is Ada?", output: Output.object({ schema: Person }) };
      assert.deepEqual((await generateText(asked)).output, { name: "Ada", age: 36 });
      const stream = streamText({ ...asked, onError: assert.fail });
      let last;
      for await (const partial of stream.partialOutputStream) last = partial;
      assert.deepEqual(last, { name: "Ada", age: 36 });
    });

    test(`${name}: a random model keeps to the schema`, async () => {
      const reply = await generateObject({
        model: model({ baseURL: server.randomUrl }),
        schema: Pet,
        prompt: "A pet, please.",
        maxRetries: 0,
      });
      Pet.parse(reply.object);
    });

    test(`${name}: a random model calls the tool it must`, async () => {
      const reply = await generateText({
        model: model({ baseURL: server.randomUrl }),
        prompt: "A pet, please.",
        tools: { adopt: tool({ inputSchema: Pet }), sell: tool({ inputSchema: Pet }) },
        toolChoice: { type: "tool", toolName: "adopt" },
        maxRetries: 0,
      });
      assert.equal(reply.toolCalls[0].toolName, "adopt");
      Pet.parse(reply.toolCalls[0].input);
    });

    const failures = [
      ["a wrong key", { apiKey: "wrong" }, {}, 401, "invalid_api_key"],
      ["an unknown model", { model: "other" }, {}, 404, "model_not_found"],
      ["a bad value", {}, { temperature: 9 }, 400, "decimal_above_max_value"],
      ["a long prompt", {}, { prompt: "hello ".repeat(10000) }, 400, "context_length_exceeded"],
      ["a key's limit", { apiKey: server.limitedKey }, {}, 429, "rate_limit_exceeded"],
      ["a full queue", { baseURL: server.busyUrl }, {}, 503, "server_is_overloaded"],
    ];
    for (const [problem, options, changed, status, code] of failures) {
      test(`${name}: ${problem} is an APICallError`, async () => {
        const asked = { model: model(options), prompt: "hello", maxRetries: 0, ...changed };
        const error = await generateText(asked).then(assert.fail, (caught) => caught);
        assert.ok(APICallError.isInstance(error), `${error}`);
        assert.equal(error.statusCode, status);
        assert.equal(error.data.error.code, code);
      });

      test(`${name}: ${problem} reaches a stream's onError`, async () => {
        const errors = [];
        const asked = { model: model(options), prompt: "hello", maxRetries: 0, ...changed };
        await streamText({ ...asked, onError: ({ error }) => errors.push(error) }).consumeStream();
        assert.equal(errors[0].statusCode, status);
      });
    }

    test(`${name}: aborting a stream frees its place`, async () => {
      const abort = new AbortController();
      const stream = streamText({ model: model(), prompt: "Talk for ever.", abortSignal: abort.signal });
      let heard = "";
      for await (const piece of stream.textStream) {
        heard += piece;
        abort.abort();
      }
      assert.match(heard, /^w/);
      await idle();
    });
  });
}
