// The one hook through which the dashboard hears from the service.
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useEffectEvent, useState } from "react";
import { keys } from "../api/jobs";
import { sessionQuery } from "../api/session";
import { openStream, type Connection, type Stream } from "./stream";

/** What to do on each named event. `open` is called at every (re)connection. */
export type Handlers = Record<string, (data: unknown) => void>;

// A browser opens six connections per host over HTTP/1.1, and a followed job holds one for as long as its tab is open.
// A tab that nobody has looked at for this long gives its connection back, and takes up where it left when it is shown.
const HIDDEN_MS = 60_000;

/**
 * Follows an event stream while the component is shown. `url` null: nothing to follow.
 * A handler that returns ends nothing; the stream ends by itself after an `end` event.
 */
export function useEvents(url: string | null, handlers: Handlers): Connection {
  const queries = useQueryClient();
  const [connection, setConnection] = useState<Connection>("connecting");

  const onEvent = useEffectEvent((name: string, data: unknown) => handlers[name]?.(data));
  const onRefused = useEffectEvent((status: number) => {
    if (status === 404) void queries.invalidateQueries({ queryKey: keys.jobs });
    else void queries.invalidateQueries({ queryKey: sessionQuery.queryKey });
  });

  useEffect(() => {
    if (url === null) return undefined;
    let stream: Stream | null = null;
    let lastEventId: string | undefined;
    let hiddenTimer: ReturnType<typeof setTimeout> | undefined;
    let ended = false;

    const open = () => {
      if (stream !== null || ended) return;
      stream = openStream(url, lastEventId, {
        onConnection: (now) => {
          setConnection(now);
          if (now === "live") onEvent("open", null);
        },
        onRefused,
        onEvent: (name, data) => {
          onEvent(name, data);
          if (name === "end") {
            ended = true;
            close();
          }
        },
      });
    };
    const close = () => {
      lastEventId = stream?.lastEventId() ?? lastEventId;
      stream?.close();
      stream = null;
    };
    const pause = () => {
      if (stream === null) return;
      close();
      setConnection("paused");
    };
    const onVisibility = () => {
      clearTimeout(hiddenTimer);
      if (document.hidden) hiddenTimer = setTimeout(pause, HIDDEN_MS);
      else if (stream === null && !ended) {
        setConnection("connecting");
        open();
      }
    };

    open();
    document.addEventListener("visibilitychange", onVisibility);
    return () => {
      document.removeEventListener("visibilitychange", onVisibility);
      clearTimeout(hiddenTimer);
      ended = true;
      close();
    };
  }, [url]);

  return connection;
}
