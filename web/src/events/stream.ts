// One server-sent stream that stays up: reconnects with Last-Event-ID, notices a silent connection, and gives up only
// when the service says that there is nothing to follow (404) or that nobody is signed in (401).
import { createEventSource } from "eventsource-client";

/** "paused" while a hidden tab has given its connection back; "closed" for good, as nothing more will come. */
export type Connection = "connecting" | "live" | "lost" | "paused" | "closed";

export interface StreamEvents {
  onEvent: (name: string, data: unknown) => void;
  onConnection: (connection: Connection) => void;
  /** The service refused for good: 401 or 404. The stream is closed. */
  onRefused: (status: number) => void;
}

export interface Stream {
  close: () => void;
  lastEventId: () => string | undefined;
}

// The service sends a comment every 15 s; three missed ones mean that the connection is dead, though it looks open.
const SILENCE_MS = 45_000;
const FINAL = new Set([401, 403, 404]);

export function openStream(url: string, from: string | undefined, events: StreamEvents): Stream {
  let lastEventId = from;
  let closed = false;
  let watchdog: ReturnType<typeof setTimeout> | undefined;
  let source = start();

  function start() {
    return createEventSource({
      url: new URL(url, location.origin),
      ...(lastEventId === undefined ? {} : { initialLastEventId: lastEventId }),
      fetch: checkedFetch,
      onMessage: ({ id, event, data }) => {
        if (closed) return;
        if (id !== undefined) lastEventId = id;
        heard();
        events.onEvent(event ?? "message", data === "" ? null : (JSON.parse(data) as unknown));
      },
      onComment: heard,
      onScheduleReconnect: () => {
        clearTimeout(watchdog);
        if (!closed) events.onConnection("lost");
      },
    });
  }

  async function checkedFetch(input: string | URL, init?: object): Promise<Response> {
    const response = await fetch(input, init);
    if (response.ok && response.headers.get("content-type")?.startsWith("text/event-stream")) {
      if (!closed) events.onConnection("live");
      heard();
      return response;
    }
    if (FINAL.has(response.status) && !closed) {
      close();
      events.onRefused(response.status);
    }
    // Anything else (a restart, a proxy's error page) is retried by the client.
    throw new Error(`event stream: HTTP ${response.status}`);
  }

  function heard() {
    clearTimeout(watchdog);
    if (closed) return;
    watchdog = setTimeout(() => {
      events.onConnection("lost");
      source.close();
      source = start();
    }, SILENCE_MS);
  }

  function close() {
    closed = true;
    clearTimeout(watchdog);
    source.close();
    events.onConnection("closed");
  }

  return { close, lastEventId: () => lastEventId };
}
