// Tells the suites of the Node.js clients where the servers are; see conftest.py of the folder above.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

export const server = {
  url: process.env.TURNWISE_TEST_URL,
  busyUrl: process.env.TURNWISE_TEST_BUSY_URL,
  randomUrl: process.env.TURNWISE_TEST_RANDOM_URL,
  key: process.env.TURNWISE_TEST_KEY,
  limitedKey: process.env.TURNWISE_TEST_LIMITED_KEY,
};

/** How many replies the scripted server generates now. */
export async function running() {
  const reply = await fetch(server.url.replace(/\/v1$/, "/ready"));
  return (await reply.json()).running;
}

/** Fail unless nothing runs within a second. */
export async function idle(limitMs = 1000) {
  const end = Date.now() + limitMs;
  while ((await running()) > 0) {
    assert.ok(Date.now() < end, `a reply still runs after ${limitMs} ms`);
    await sleep(20);
  }
}
