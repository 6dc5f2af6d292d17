// Where the dashboard starts: the token leaves the address bar first, then the pages open.
import { QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { asProblem } from "./api/problem";
import { makeQueryClient } from "./api/queries";
import { signIn, takeToken } from "./api/session";
import { router } from "./router";
import "./styles/index.css";

async function start(): Promise<void> {
  const token = takeToken(window.location, window.history);
  if (token !== null) {
    await signIn(token).catch((error: unknown) => {
      // The sign-in form opens by itself; here is the reason for somebody who looks for it.
      console.warn("The token in the address was refused.", asProblem(error).detail);
    });
  }
  const root = document.getElementById("root");
  if (root === null) throw new Error("index.html has no element #root");
  createRoot(root).render(
    <StrictMode>
      <QueryClientProvider client={makeQueryClient()}>
        <RouterProvider router={router} />
      </QueryClientProvider>
    </StrictMode>,
  );
}

void start();
