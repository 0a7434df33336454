// The JavaScript clients: openai and Vercel's AI SDK.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, streamText, tool } from "ai";
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { z } from "zod";

const URL_ = process.env.DWINDLE_URL;
const BASE = `${URL_}/v1`;
const PICTURE = `${process.env.DWINDLE_ROOT}/demo/images/01-square-96.png`;
const QUESTION = "What do you see?";
const picture = readFileSync(PICTURE);
const user = [{ role: "user", content: QUESTION }];

const SCHEMA = {
  type: "object",
  properties: { colour: { type: "string", enum: ["red", "green"] }, count: { type: "integer", minimum: 0, maximum: 9 } },
  required: ["colour", "count"],
  additionalProperties: false,
};
// Nothing but numbers, so many that there is time to leave.
const ENDLESS = {
  type: "object",
  properties: { n: { type: "array", items: { type: "integer" }, minItems: 300 } },
  required: ["n"],
  additionalProperties: false,
};
const PARAMETERS = {
  type: "object",
  properties: { far: { type: "boolean" } },
  required: ["far"],
  additionalProperties: false,
};

let said = null;

/** The answer of `dwindle run` to the same picture and question. */
function whatRunSays() {
  if (said !== null) return said;
  const options = ["run", "--device", "cpu", "--image", PICTURE, "--prompt", QUESTION, "--temperature", "0", "--json"];
  said = JSON.parse(execFileSync(process.env.DWINDLE_BINARY, options, { stdio: ["ignore", "pipe", "ignore"] })).answer;
  return said;
}

async function cancelled() {
  const text = await (await fetch(`${URL_}/metrics`)).text();
  return Number(text.split("\n").find((line) => line.startsWith('dwindle_requests_total{end="cancelled"}')).split(" ").at(-1));
}

async function isCancelled(before) {
  for (let tries = 0; tries < 100; tries += 1) {
    if ((await cancelled()) > before) return;
    await new Promise((done) => setTimeout(done, 100));
  }
  assert.fail("the server went on");
}

async function check(client, name, action) {
  try {
    await action();
    console.log(`PASS ${client}: ${name}`);
  } catch (error) {
    console.log(`FAIL ${client}: ${name}: ${String(error).slice(0, 300).replaceAll("\n", " ")}`);
    console.error(error);
  }
}

async function openaiChecks() {
  const client = new OpenAI({ baseURL: BASE, apiKey: "none", maxRetries: 0 });
  const model = (await client.models.list()).data[0].id;
  const create = (fields) => client.chat.completions.create({ model, messages: user, temperature: 0, ...fields });
  const functions = [{ type: "function", function: { name: "look", parameters: PARAMETERS } }];

  await check("openai (JS)", "text", async () => {
    const answer = await create({});
    assert.ok(answer.choices[0].message.content);
    assert.equal(answer.choices[0].finish_reason, "stop");
  });
  await check("openai (JS)", "stream with usage", async () => {
    const whole = (await create({})).choices[0].message.content;
    let text = "";
    let usage = null;
    for await (const chunk of await create({ stream: true, stream_options: { include_usage: true } })) {
      text += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, whole);
    assert.ok(usage.completion_tokens > 0);
  });
  await check("openai (JS)", "picture", async () => {
    const url = `data:image/png;base64,${picture.toString("base64")}`;
    const content = [{ type: "image_url", image_url: { url } }, { type: "text", text: QUESTION }];
    const answer = await create({ messages: [{ role: "user", content }] });
    assert.equal(answer.choices[0].message.content, whatRunSays());
  });
  await check("openai (JS)", "JSON schema", async () => {
    const format = { type: "json_schema", json_schema: { name: "thing", schema: SCHEMA, strict: true } };
    const thing = JSON.parse((await create({ response_format: format })).choices[0].message.content);
    assert.ok(["red", "green"].includes(thing.colour) && Number.isInteger(thing.count));
  });
  await check("openai (JS)", "tool call", async () => {
    const runner = client.chat.completions.stream({ model, messages: user, tools: functions, tool_choice: "required", parallel_tool_calls: false });
    const message = await runner.finalMessage();
    assert.equal(message.tool_calls[0].function.name, "look");
    assert.equal(typeof JSON.parse(message.tool_calls[0].function.arguments).far, "boolean");
  });
  await check("openai (JS)", "responses", async () => {
    const whole = (await create({})).choices[0].message.content;
    const stream = client.responses.stream({ model, input: QUESTION, temperature: 0 });
    const response = await stream.finalResponse();
    assert.equal(response.output_text, whole);
  });
  await check("openai (JS)", "cancel", async () => {
    const before = await cancelled();
    const format = { type: "json_schema", json_schema: { name: "n", schema: ENDLESS } };
    const stream = await create({ response_format: format, stream: true });
    for await (const _ of stream) break;
    stream.controller.abort();
    await isCancelled(before);
  });
  await check("openai (JS)", "error", async () => {
    await assert.rejects(create({ model: "gpt-4o" }), (error) => error.status === 404 && error.code === "model_not_found");
    await assert.rejects(create({ temperature: -1 }), (error) => error.status === 400 && error.param === "temperature");
  });
}

async function sdkChecks() {
  const provider = createOpenAICompatible({ name: "dwindle", baseURL: BASE, includeUsage: true, supportsStructuredOutputs: true });
  const model = provider("demo");
  const options = { model, prompt: QUESTION, temperature: 0, maxRetries: 0 };
  const tools = { look: tool({ description: "Looks.", inputSchema: z.object({ far: z.boolean() }) }) };

  await check("AI SDK", "text", async () => {
    const { text, finishReason } = await generateText(options);
    assert.ok(text);
    assert.equal(finishReason, "stop");
  });
  await check("AI SDK", "stream with usage", async () => {
    const { text: whole } = await generateText(options);
    const result = streamText(options);
    let text = "";
    for await (const piece of result.textStream) text += piece;
    assert.equal(text, whole);
    assert.ok((await result.usage).outputTokens > 0);
  });
  await check("AI SDK", "picture", async () => {
    const content = [{ type: "image", image: picture, mediaType: "image/png" }, { type: "text", text: QUESTION }];
    const { text } = await generateText({ model, temperature: 0, messages: [{ role: "user", content }] });
    assert.equal(text, whatRunSays());
  });
  await check("AI SDK", "JSON schema", async () => {
    const { object } = await generateObject({ ...options, schema: jsonSchema(SCHEMA) });
    assert.ok(["red", "green"].includes(object.colour) && Number.isInteger(object.count));
  });
  await check("AI SDK", "tool call", async () => {
    const { toolCalls, finishReason } = await generateText({ ...options, tools, toolChoice: "required" });
    assert.equal(toolCalls[0].toolName, "look");
    assert.equal(typeof toolCalls[0].input.far, "boolean");
    assert.equal(finishReason, "tool-calls");
    const streamed = streamText({ ...options, tools, toolChoice: { type: "tool", toolName: "look" } });
    assert.equal((await streamed.toolCalls)[0].toolName, "look");
  });
  await check("AI SDK", "cancel", async () => {
    const before = await cancelled();
    const controller = new AbortController();
    const request = generateObject({ ...options, schema: jsonSchema(ENDLESS), abortSignal: controller.signal });
    setTimeout(() => controller.abort(), 300);
    await assert.rejects(request);
    await isCancelled(before);
  });
  await check("AI SDK", "error", async () => {
    await assert.rejects(generateText({ ...options, model: provider("nobody") }), (error) => error.statusCode === 404 && /does not exist/.test(error.message));
  });
}

await openaiChecks();
await sdkChecks();
