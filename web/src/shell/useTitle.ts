// What the browser's tab says, so that a training can be followed from the corner of an eye.
import { useEffect } from "react";

export function useTitle(title: string): void {
  useEffect(() => {
    document.title = title === "" ? "Lockstep" : `${title} · Lockstep`;
    return () => {
      document.title = "Lockstep";
    };
  }, [title]);
}
