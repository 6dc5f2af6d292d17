// @vitest-environment jsdom
// What a person meets on the page: a phase that needs no colour, text that stays text, a token that was refused.
import { QueryClientProvider } from "@tanstack/react-query";
import { cleanup, render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, describe, expect, it, vi } from "vitest";
import { Problem } from "../api/problem";
import { makeQueryClient } from "../api/queries";
import { followPastedLinks } from "../api/session";
import type { Phase } from "../api/types";
import { LogPiece } from "../job/LogPiece";
import { SignIn } from "../shell/SignIn";
import { ErrorView } from "./ErrorView";
import { PhaseBadge, SlurmState } from "./PhaseBadge";
import { Prose } from "./Prose";

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

describe("a phase", () => {
  const phases: Phase[] = ["accepted", "waiting", "running", "ended well", "ended badly", "unknown"];

  it("has a word and a shape of its own, so that its colour is not needed", () => {
    const { container } = render(phases.map((phase) => <PhaseBadge key={phase} phase={phase} />));
    for (const phase of phases) expect(screen.getByText(phase)).toBeTruthy();
    const shapes = [...container.querySelectorAll("svg")].map((drawing) => drawing.firstElementChild?.getAttribute("d") ?? "circle");
    expect(new Set(shapes).size).toBe(phases.length);
  });

  it("stands beside Slurm's own word, with its flags", () => {
    render(<SlurmState state="COMPLETED" flags={["COMPLETING"]} />);
    expect(screen.getByTestId("slurm-state").textContent).toBe("COMPLETED+COMPLETING");
  });
});

describe("text from elsewhere", () => {
  const nasty = '<img src=x onerror="alert(1)">';

  it("stays text in a log, in a sentence and in an error", () => {
    const { container } = render(
      <>
        <LogPiece text={nasty} />
        <Prose text={`${nasty} and \`${nasty}\``} />
        <ErrorView error={new Error(nasty)} />
      </>,
    );
    expect(container.querySelector("img")).toBeNull();
    expect(container.textContent.split(nasty)).toHaveLength(5);
    expect(container.querySelector("code")?.textContent).toBe(nasty);
  });
});

describe("an error", () => {
  it("says that the page tries again by itself where it does, and only there", () => {
    const says = (error: unknown) => {
      const { container } = render(<ErrorView error={error} />);
      return container.textContent.includes("tries again by itself");
    };
    expect([new TypeError("Failed to fetch"), new Problem(503, "Busy", "Later.")].map(says)).toEqual([true, true]);
    expect([new Problem(404, "No such job", "It is gone."), new Error("a fault of the page")].map(says)).toEqual([false, false]);
  });
});

describe("signing in", () => {
  it("shows why a token was refused, and keeps the form", async () => {
    const answer = { title: "Unauthenticated", detail: "The token is not this service's.", status: 401 };
    const fetched = vi.fn(() => Promise.resolve(new Response(JSON.stringify(answer), { status: 401 })));
    vi.stubGlobal("fetch", fetched);
    render(
      <QueryClientProvider client={makeQueryClient()}>
        <SignIn />
      </QueryClientProvider>,
    );
    const button = screen.getByRole("button", { name: "Sign in" });
    expect(button).toHaveProperty("disabled", true);
    await userEvent.type(screen.getByLabelText("Token"), " wrong ");
    await userEvent.click(button);
    expect((await screen.findByText("The token is not this service's.")).getAttribute("role")).toBe("alert");
    expect(fetched).toHaveBeenCalledTimes(1);
    expect(button).toHaveProperty("disabled", false);
  });

  it("by a link that is put into the open page takes its code out first, and says why it was refused", async () => {
    const answer = { title: "Unauthenticated", detail: "This link was used already.", status: 401 };
    const addresses: string[] = [];
    vi.stubGlobal("fetch", () => {
      addresses.push(window.location.href);
      return Promise.resolve(new Response(JSON.stringify(answer), { status: 401 }));
    });
    render(
      <QueryClientProvider client={makeQueryClient()}>
        <SignIn />
      </QueryClientProvider>,
    );
    const before = window.location.href;
    const followed = vi.fn();
    followPastedLinks(followed);
    window.location.hash = "#code=abc";
    expect((await screen.findByText("This link was used already.")).getAttribute("role")).toBe("alert");
    await vi.waitFor(() => expect(followed).toHaveBeenCalledTimes(1));
    expect(addresses).toEqual([before]);
    expect(window.location.href).toBe(before);
  });
});
