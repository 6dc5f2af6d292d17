// A throttled refresh that ends with its component.
import { useCallback, useEffect, useEffectEvent, useRef } from "react";
import { throttle, type Throttled } from "./throttle";

export function useThrottled(interval: number, refresh: () => Promise<unknown>): () => void {
  const throttled = useRef<Throttled | null>(null);
  const present = useEffectEvent(refresh);

  useEffect(() => {
    const made = throttle(interval, () => present());
    throttled.current = made;
    return () => made.cancel();
  }, [interval]);

  return useCallback(() => throttled.current?.(), []);
}
