// The load of a peer: 64 submitters, then the wait for the last job. See measure.go for the lines
// that it exchanges with the program that started it.
import { fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const submitters = 64;
const warmTime = 2000; // ms of jobs before the measurement
const warmJobs = 10; // of each submitter, at most
const drainLimit = 5 * 60 * 1000; // ms for the last job

export const url = process.env.PEER_URL;
export const input = "x".repeat(500);
export const isWorker = process.argv[2] === "worker";

// versionOf returns the version of an installed package.
export function versionOf(name) {
  return JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;
}

// startWorker starts the same script again as the worker, and waits until it says that it is ready.
export function startWorker(script) {
  const child = fork(fileURLToPath(script), ["worker"], { stdio: ["ignore", "ignore", "inherit", "ipc"] });
  return new Promise((resolve, reject) => {
    child.once("message", () => resolve(child));
    child.once("exit", (code) => reject(new Error(`the worker ended with ${code}`)));
  });
}

// workerIsReady tells startWorker, and ends the worker when the load has ended.
export function workerIsReady() {
  process.send("ready");
  process.once("disconnect", () => process.exit());
}

// run measures. submit resolves when a job is acknowledged, done to the number of jobs that are done.
export async function run(version, submit, done) {
  let submitted = 0;
  async function burst(ms, jobs) {
    const began = performance.now();
    const samples = [];
    async function submitter() {
      for (let n = 0; n < jobs && performance.now() - began < ms; n++) {
        const start = performance.now();
        await submit(input);
        samples.push(performance.now() - start);
      }
    }
    await Promise.all(Array.from({ length: submitters }, submitter));
    submitted += samples.length;
    const limit = performance.now() + drainLimit;
    while ((await done(submitted)) < submitted) {
      if (performance.now() > limit) throw new Error("not all jobs were done in time");
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    samples.sort((a, b) => a - b);
    const percentile = (p) => samples[Math.ceil((samples.length * p) / 100) - 1];
    return { jobs: samples.length, seconds: (performance.now() - began) / 1000, p50_ms: percentile(50), p99_ms: percentile(99) };
  }
  await burst(warmTime, warmJobs);
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  console.log(JSON.stringify({ version }));
  if ((await lines.next()).done) process.exit(1);
  console.log(JSON.stringify(await burst(Number(process.env.PEER_MILLISECONDS), Infinity)));
  await lines.next(); // until the input ends
  process.exit();
}
