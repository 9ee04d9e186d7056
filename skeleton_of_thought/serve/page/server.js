// The server's interface: its models, and streams of chat completions.

import { serverSentEvents } from "./stream.js";

// Relative to this file, so that the page also works under a prefix of a reverse proxy.
const API = new URL("../v1/", import.meta.url);
const KEY = "sot.key";
let unkept = null; // the key, also where the browser keeps none

/** An error that the server reports, or a server that cannot be reached (status 0). */
export class ServerError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** Keeps the key for this tab, until it is closed. */
export function setKey(key) {
  unkept = key || null;
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    // The browser keeps nothing for this page: the key holds until the page is left.
  }
}

function keyOf() {
  try {
    return sessionStorage.getItem(KEY) ?? unkept;
  } catch {
    return unkept;
  }
}

/** Whether a key was given. */
export function hasKey() {
  return keyOf() !== null;
}

/** The models that answer by points: `{id, name, local, remark}`, where `name` passes through. */
export async function models(signal) {
  const response = await request("models", { signal });
  const { data = [] } = await response.json();
  return data
    .filter((model) => model.sot?.by_points)
    .map(({ id, sot }) => ({ id, name: sot.model ?? id.replace(/-sot$/, ""), local: !!sot.local, remark: sot.remark }));
}

/** Streams a chat completion: `{chunk, route, reason}` for each chunk, with what the response's headers say of the route. */
export async function* complete(body, signal) {
  const response = await request("chat/completions", {
    method: "POST",
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const route = response.headers.get("x-sot-route");
  const reason = response.headers.get("x-sot-reason");
  for await (const data of serverSentEvents(response.body)) {
    if (data.trim() === "[DONE]") return;
    let chunk;
    try {
      chunk = JSON.parse(data);
    } catch {
      throw new ServerError("The server sent a chunk that is not JSON.");
    }
    if (chunk === null || typeof chunk !== "object") throw new ServerError("The server sent a chunk that is not an object.");
    yield { chunk, route, reason };
    if (chunk.error) throw new ServerError(chunk.error.message ?? "The server reported an error without a message.", 200);
  }
  throw new ServerError("The connection ended before the answer did.");
}

async function request(path, options) {
  const headers = options.body ? { "content-type": "application/json" } : {};
  const key = keyOf();
  if (key) headers.authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(new URL(path, API), { ...options, headers, cache: "no-store", referrerPolicy: "no-referrer" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    // A key with characters that no header can carry ends here, too.
    throw new ServerError("The server cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  throw new ServerError(await message(response), response.status);
}

async function message(response) {
  const text = await response.text().catch(() => "");
  let said;
  try {
    said = JSON.parse(text).error?.message;
  } catch {
    // A proxy's page of HTML says less than its status.
  }
  const again = response.headers.get("retry-after");
  return (said ?? `The server answered with status ${response.status}.`) + (again ? ` Try again in ${again} s.` : "");
}
