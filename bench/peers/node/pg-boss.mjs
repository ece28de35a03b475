// pg-boss.
import pg from "pg";
import { PgBoss } from "pg-boss";
import { isWorker, run, startWorker, url, versionOf, workerIsReady } from "./load.mjs";

const boss = new PgBoss({ connectionString: url, max: 25, useListenNotify: isWorker });
boss.on("error", console.error);
await boss.start();
if (isWorker) {
  // A full batch is followed by the next at once, and a notice ends the wait for the next look.
  const options = { batchSize: 500, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5, perJobResults: true };
  await boss.work("echo", options, async (jobs) => jobs.map((job) => ({ id: job.id, status: "completed", output: { input: job.data.input } })));
  workerIsReady();
} else {
  await boss.createQueue("echo", { notify: true });
  await startWorker(import.meta.url);
  const pool = new pg.Pool({ connectionString: url, max: 1 });
  await run(
    versionOf("pg-boss"),
    (input) => boss.send("echo", { input }),
    async () => Number((await pool.query("select count(*) from pgboss.job where name = 'echo' and state = 'completed'")).rows[0].count),
  );
}
