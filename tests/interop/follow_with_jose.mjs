// Follows a key set with npm's jose and its default cache, by the clock of whoever asks: reads {now, token} line by line
// on standard input (`now` in Unix seconds) and answers each with the token's claims, or the code of jose's error.
// {jwksUri, issuer, audience} come from the environment variable QUESTION.
import { createInterface } from "node:readline";
import { createRemoteJWKSet, jwtVerify } from "jose";

const { jwksUri, issuer, audience } = JSON.parse(process.env.QUESTION);
const keys = createRemoteJWKSet(new URL(jwksUri));
for await (const line of createInterface({ input: process.stdin })) {
  const { now, token } = JSON.parse(line);
  Date.now = () => now * 1000;
  try {
    const { payload } = await jwtVerify(token, keys, { issuer, audience, typ: "at+jwt", currentDate: new Date(now * 1000) });
    console.log(JSON.stringify(payload));
  } catch (error) {
    console.log(JSON.stringify({ code: error.code ?? String(error) }));
  }
}
