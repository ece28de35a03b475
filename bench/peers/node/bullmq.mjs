// BullMQ, on Redis or on PostgreSQL.
import { createPostgresBackend, Queue, runMigrations, Worker } from "bullmq";
import pg from "pg";
import { isWorker, run, startWorker, url, versionOf, workerIsReady } from "./load.mjs";

const onPostgres = url.startsWith("postgres:");
const options = { connection: onPostgres ? { connectionString: url, max: 32 } : { host: "127.0.0.1", port: Number(new URL(url).port), maxRetriesPerRequest: null } };
const backend = onPostgres ? [createPostgresBackend] : [];

if (isWorker) {
  const worker = new Worker("echo", async (job) => job.data.input, { ...options, concurrency: onPostgres ? 32 : 64 }, ...backend);
  worker.on("error", console.error);
  await worker.waitUntilReady();
  workerIsReady();
} else {
  if (onPostgres) {
    const client = new pg.Client(url);
    await client.connect();
    await runMigrations(client);
    await client.end();
  }
  const queue = new Queue("echo", options, ...backend);
  await queue.waitUntilReady();
  await startWorker(import.meta.url);
  await run(versionOf("bullmq"), (input) => queue.add("echo", { input }), () => queue.getCompletedCount());
}
