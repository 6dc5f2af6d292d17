// An answer that was an error: RFC 9457's title and detail, for the person who reads the page.

export interface ProblemError {
  where: string;
  message: string;
}

export class Problem extends Error {
  override readonly name = "Problem";

  constructor(
    /** HTTP status; 0 when there was no answer at all. */
    readonly status: number,
    readonly title: string,
    readonly detail: string,
    readonly errors: readonly ProblemError[] = [],
  ) {
    super(`${title}: ${detail}`);
  }
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

function errorsOf(value: unknown): ProblemError[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((item: unknown) => {
    const { where, message } = (item ?? {}) as Record<string, unknown>;
    return typeof where === "string" && typeof message === "string" ? [{ where, message }] : [];
  });
}

/** Reads an unsuccessful response. A body that is no problem document (a proxy's page) still gives a plain sentence. */
export async function problemFrom(response: Response): Promise<Problem> {
  const body: unknown = await response.json().catch(() => null);
  const { title, detail, errors } = (body ?? {}) as Record<string, unknown>;
  return new Problem(
    response.status,
    text(title) ?? `The service answered ${response.status}`,
    text(detail) ?? (response.statusText || "It gave no further detail."),
    errorsOf(errors),
  );
}

/** Whether the same may be answered well later: a restart or a lost connection passes, a 4xx does not. */
export function passing(error: unknown): boolean {
  return !(error instanceof Problem && error.status >= 400 && error.status < 500);
}

/** Any thrown value as a problem; a failed connection becomes one with status 0. */
export function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof TypeError) {
    return new Problem(0, "The service cannot be reached", "Is `lockstep serve` running?");
  }
  return new Problem(0, "Something went wrong on this page", error instanceof Error ? error.message : String(error));
}
