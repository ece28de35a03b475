// graphile-worker. It keeps no results and deletes what is done.
import { makeWorkerUtils, run as runWorker, runMigrations } from "graphile-worker";
import { Logger } from "graphile-worker";
import pg from "pg";
import { isWorker, run, startWorker, url, versionOf, workerIsReady } from "./load.mjs";

const quiet = new Logger(() => () => {});
const preset = {
  worker: {
    connectionString: url,
    concurrentJobs: 24,
    maxPoolSize: 25,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    logger: quiet,
  },
};

if (isWorker) {
  await runWorker({ preset, logger: quiet, taskList: { echo: async (payload) => payload.input } });
  workerIsReady();
} else {
  await runMigrations({ preset, logger: quiet });
  const pool = new pg.Pool({ connectionString: url, max: 25 });
  const utils = await makeWorkerUtils({ pgPool: pool, logger: quiet });
  await startWorker(import.meta.url);
  await run(
    versionOf("graphile-worker"),
    (input) => utils.addJob("echo", { input }),
    async (submitted) => submitted - Number((await pool.query("select count(*) from graphile_worker._private_jobs")).rows[0].count),
  );
}
