// How the dashboard is built, served while it is worked on, and tested.
import { readFileSync } from "node:fs";
import react from "@vitejs/plugin-react";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const service = process.env.LOCKSTEP_URL ?? "http://127.0.0.1:8080";

// The fonts' licence asks that it goes where they go; those of the code are gathered by `build.license`.
const fontLicences: Plugin = {
  name: "font-licences",
  generateBundle() {
    for (const font of ["inter", "jetbrains-mono"]) {
      const source = readFileSync(new URL(`node_modules/@fontsource-variable/${font}/LICENSE`, import.meta.url), "utf8");
      this.emitFile({ type: "asset", fileName: `licenses/${font}.txt`, source });
    }
  },
};

export default defineConfig({
  plugins: [react(), fontLicences],
  build: {
    license: { fileName: "licenses/code.md" },
    // The service's Content-Security-Policy is default-src 'self': an asset inlined as a data: URI would be refused.
    assetsInlineLimit: 0,
    rolldownOptions: {
      output: {
        codeSplitting: {
          groups: [
            { name: "charts", test: /node_modules[\\/]uplot/ },
            { name: "vendor", test: /node_modules[\\/]/ },
          ],
        },
      },
    },
  },
  server: {
    host: "127.0.0.1",
    proxy: { "/api": { target: service, changeOrigin: true, headers: { origin: service } } },
  },
  // A test that needs a page says so in its first line; the others are spared the wait for one.
  test: { environment: "node", restoreMocks: true },
});
