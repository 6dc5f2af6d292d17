// Where the dashboard starts: a link's code leaves the address bar first, then the pages open.
import { QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { makeQueryClient } from "./api/queries";
import { followLink, followPastedLinks, sessionQuery, takeCode } from "./api/session";
import { router } from "./router";
import "./styles/index.css";

async function start(): Promise<void> {
  const queries = makeQueryClient();
  followPastedLinks(() => void queries.invalidateQueries({ queryKey: sessionQuery.queryKey }));
  const code = takeCode(window.location, window.history);
  if (code !== null) await followLink(code);
  const root = document.getElementById("root");
  if (root === null) throw new Error("index.html has no element #root");
  createRoot(root).render(
    <StrictMode>
      <QueryClientProvider client={queries}>
        <RouterProvider router={router} />
      </QueryClientProvider>
    </StrictMode>,
  );
}

void start();
