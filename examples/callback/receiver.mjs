// Receives callbacks: WEBHOOK_SECRET=whsec_… PORT=9000 node receiver.mjs
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const key = Buffer.from(process.env.WEBHOOK_SECRET.replace("whsec_", ""), "base64");

function isSigned(headers, body) {
  const at = headers["webhook-timestamp"];
  if (!(Math.abs(Date.now() / 1000 - at) <= 300)) return false;
  const want = createHmac("sha256", key).update(`${headers["webhook-id"]}.${at}.`).update(body).digest();
  return `${headers["webhook-signature"]}`.split(" ").some((one) => {
    const got = Buffer.from(one.replace("v1,", ""), "base64");
    return one.startsWith("v1,") && got.length === want.length && timingSafeEqual(got, want);
  });
}

const server = createServer(async (request, response) => {
  const body = Buffer.concat(await request.toArray());
  if (!isSigned(request.headers, body)) return response.writeHead(401).end("the signature is wrong");
  const event = JSON.parse(body);
  console.log(event.type, event.data.id); // may come twice, with the same webhook-id
  response.writeHead(204).end();
});
server.listen(process.env.PORT ?? 9000, "127.0.0.1", () => console.log(`Listening at http://127.0.0.1:${server.address().port}/`));
