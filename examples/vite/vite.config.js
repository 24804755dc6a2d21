// The page and jotgate share one origin: https://localhost:5173, with the local certificate that `jotgate serve` has made.
import { readFileSync } from "node:fs";

const data = process.env.JOTGATE_DATA_DIR ?? "jotgate-data";
const jotgate = process.env.JOTGATE_URL ?? "https://localhost:8443";

export default {
  server: {
    port: 5173,
    strictPort: true,
    https: { cert: readFileSync(`${data}/tls/cert.pem`), key: readFileSync(`${data}/tls/key.pem`) },
    proxy: {
      // jotgate's issuer has the path /auth, so that the path is passed on as it is. `secure: false` is for the local
      // certificate, whose authority Node does not know, and for nothing else.
      "/auth": { target: jotgate, secure: false },
    },
  },
};
