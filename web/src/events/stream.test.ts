// The event stream against a real HTTP server: it comes back where it left off, and knows when to stop.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { openStream, type Connection, type Stream } from "./stream";

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

let server: Server;
let stream: Stream | undefined;
let answers: Answer[];
let asked: (string | undefined)[];

const sse =
  (text: string, { hold }: { hold: boolean }): Answer =>
  (_request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
    // A short retry keeps the test quick; the service leaves the client's own.
    response.write(`retry: 20\n\n${text}`);
    if (!hold) response.end();
  };

const refuse =
  (status: number): Answer =>
  (_request, response) => {
    response.writeHead(status, { "content-type": "application/problem+json" }).end("{}");
  };

beforeEach(async () => {
  asked = [];
  server = createServer((request, response) => {
    const last = request.headers["last-event-id"];
    asked.push(Array.isArray(last) ? last[0] : last);
    (answers.shift() ?? refuse(404))(request, response);
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  vi.stubGlobal("location", { origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
});

afterEach(async () => {
  stream?.close();
  stream = undefined;
  vi.unstubAllGlobals();
  server.closeAllConnections();
  await new Promise((closed) => server.close(closed));
});

function follow(from?: string) {
  const events: [string, unknown][] = [];
  const connections: Connection[] = [];
  const refused: number[] = [];
  stream = openStream("/api/v1/events", from, {
    onEvent: (name, data) => events.push([name, data]),
    onConnection: (connection) => connections.push(connection),
    onRefused: (status) => refused.push(status),
  });
  return { events, connections, refused };
}

it("comes back after a lost connection, with the id of the last event it saw", async () => {
  answers = [
    sse('event: jobs\nid: 7\ndata: {"id":"a"}\n\n', { hold: false }),
    refuse(503),
    sse('event: jobs\nid: 8\ndata: {"id":"b"}\n\n', { hold: true }),
  ];
  const { events, connections } = follow();
  await vi.waitFor(() => expect(events).toHaveLength(2));
  expect(events).toEqual([
    ["jobs", { id: "a" }],
    ["jobs", { id: "b" }],
  ]);
  expect(asked).toEqual([undefined, "7", "7"]);
  expect(connections).toEqual(["live", "lost", "lost", "live"]);
  expect(stream?.lastEventId()).toBe("8");
});

it("starts after the event that it is told", async () => {
  answers = [sse(": hello\n\n", { hold: true })];
  const { connections } = follow("41");
  await vi.waitFor(() => expect(connections).toEqual(["live"]));
  expect(asked).toEqual(["41"]);
});

it.each([401, 404])("stops for good when the service answers %i", async (status) => {
  answers = [refuse(status)];
  const { refused, connections } = follow();
  await vi.waitFor(() => expect(refused).toEqual([status]));
  expect(connections).toEqual(["closed"]);
  // Several of the client's own waits long: were it to try again, the server would have heard it.
  await new Promise((later) => setTimeout(later, 200));
  expect(asked).toHaveLength(1);
});

it("takes a page that is no event stream for a lost connection", async () => {
  answers = [(_request, response) => response.writeHead(200, { "content-type": "text/html" }).end("<html>")];
  const { connections, events } = follow();
  await vi.waitFor(() => expect(connections).toEqual(["lost"]));
  expect(events).toEqual([]);
});
