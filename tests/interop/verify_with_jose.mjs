// Reads {jwksUri, issuer, audience, tokens} from the environment variable QUESTION and prints, as a JSON list, what
// npm's jose says of each token: its claims, or the code of its error. Fed to node on standard input.
import { createRemoteJWKSet, jwtVerify } from "jose";

const { jwksUri, issuer, audience, tokens } = JSON.parse(process.env.QUESTION);
const keys = createRemoteJWKSet(new URL(jwksUri));
const answers = [];
for (const token of tokens) {
  try {
    const { payload, protectedHeader } = await jwtVerify(token, keys, { issuer, audience, typ: "at+jwt", algorithms: ["ES256"] });
    answers.push({ claims: payload, header: protectedHeader });
  } catch (error) {
    answers.push({ code: error.code ?? String(error) });
  }
}
console.log(JSON.stringify(answers));
