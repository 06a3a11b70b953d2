import { defineConfig } from "vitest/config";

const api = process.env.CUTAWAY ?? "http://localhost:8000";

export default defineConfig({
  base: "/viewer/",
  build: {
    outDir: "../service/viewer",
    emptyOutDir: true,
    assetsInlineLimit: 0, // the page's content security policy forbids data URLs
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700,
  },
  server: { proxy: { "^/(v1|docs|openapi.yaml|readyz)": api } },
  test: { include: ["tests/**/*.test.ts"] },
});
