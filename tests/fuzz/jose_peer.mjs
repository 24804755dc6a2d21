// npm's jose as a peer: reads one JSON question a line on standard input, answers each with one JSON line. An answer is
// a list with null for what is taken, and a refusal as text. It ends with its input. Argument: the folder of jose.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { createLocalJWKSet, importJWK, jwtVerify } = await import(pathToFileURL(`${process.argv[2]}/jose/dist/webapi/index.js`));
const said = (error) => `${error.code ?? error.name}: ${error.message}`.replaceAll("\n", " ");

async function judge(token, key, { algorithm, issuer, audience, now }) {
  try {
    await jwtVerify(token, key, {
      algorithms: [algorithm], issuer, audience, typ: "at+jwt", clockTolerance: 5, currentDate: new Date(now * 1000),
      requiredClaims: ["exp", "sub", "iat"],
    });
    return null;
  } catch (error) {
    return said(error);
  }
}

// Keys and sets come as the base64 of their text, which need be no JSON and no UTF-8.
const parsed = (text) =>
  JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.from(text, "base64")));

async function judgeKey(text, question) {
  try {
    const jwk = parsed(text);
    const key = await importJWK(jwk, jwk.alg ?? question.algorithm);
    return [null, await judge(question.token, key, question)];
  } catch (error) {
    return [said(error), "not imported"];
  }
}

async function judgeSet(text, question) {
  let keys;
  try {
    keys = createLocalJWKSet(parsed(text));
  } catch (error) {
    return `not read: ${said(error)}`;
  }
  return judge(question.token, keys, question);
}

for await (const line of createInterface({ input: process.stdin })) {
  const question = JSON.parse(line);
  const answers = [];
  if (question.sets !== undefined) {
    for (const text of question.sets) answers.push(await judgeSet(text, question));
  } else if (question.keys === undefined) {
    const key = await importJWK(question.jwk, question.algorithm);
    for (const token of question.tokens) answers.push(await judge(token, key, question));
  } else {
    for (const text of question.keys) answers.push(await judgeKey(text, question));
  }
  process.stdout.write(`${JSON.stringify(answers)}\n`);
}
