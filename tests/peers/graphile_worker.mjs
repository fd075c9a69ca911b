// graphile-worker: one call of an empty function for each job.

import { Logger, makeWorkerUtils, run, runMigrations } from "graphile-worker";
import pg from "pg";

import { asked, counter, say, sleep, timed } from "./driver.mjs";

const CONCURRENCY = 24;
// Each job of a transaction takes longer than the one before: 40,000 in one take over a minute.
const ADDED_AT_ONCE = 1_000;

// As it comes; with its local queue; as its page on performance has it; and the best of what was tried here.
const MODES = {
    plain: {},
    "local-queue": { localQueue: { size: CONCURRENCY + 1 } },
    batched: { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 },
    best: { localQueue: { size: 2000 }, completeJobBatchDelay: 10, failJobBatchDelay: 10 },
};

const { verb, count, mode } = asked();
const pgPool = new pg.Pool({ max: CONCURRENCY + 2 });
// A connection that is ended with its server is no news.
pgPool.on("error", () => {});
const logger = new Logger(() => (level, message) => level === "error" && console.error(message));
// `run` would stop at signals of its own; whoever measures stops a driver.
const common = { pgPool, logger, noHandleSignals: true };

async function fill() {
    await runMigrations(common);
    const sql =
        "select count(graphile_worker.add_job('noop', json_build_object('n', n))) from generate_series($1::int, $2::int) n";
    for (let first = 1; first <= count; first += ADDED_AT_ONCE) {
        await pgPool.query(sql, [first, Math.min(first + ADDED_AT_ONCE - 1, count)]);
    }
}

async function work() {
    if (!(mode in MODES)) throw new Error(`a mode is one of ${Object.keys(MODES)}`);
    const { call, last } = counter(count);
    const worker = { concurrentJobs: CONCURRENCY, ...MODES[mode] };
    let runner;
    const begin = async () => {
        runner = await run({ ...common, preset: { worker }, taskList: { noop: async () => call() } });
        await last;
    };
    // What is done is deleted.
    const left = async () =>
        Number((await pgPool.query("select count(*) from graphile_worker._private_jobs")).rows[0].count);
    await timed(count, begin, left);
    await runner.stop();
}

/** From before `addJob` to the function, with the worker in this process and nothing else to do. */
async function latency() {
    await runMigrations(common);
    let began;
    const worker = { concurrentJobs: CONCURRENCY };
    const taskList = { noop: async () => began(performance.now()) };
    const runner = await run({ ...common, preset: { worker }, taskList });
    const utils = await makeWorkerUtils(common);
    const samples_ms = [];
    // The first ones pay for what is cached from then on.
    for (let n = -10; n < count; n += 1) {
        await sleep(30 + Math.random() * 40);
        const begins = new Promise((resolve) => (began = resolve));
        const called = performance.now();
        await utils.addJob("noop", { n });
        const took = (await begins) - called;
        if (n >= 0) samples_ms.push(took);
    }
    say({ samples_ms });
    await utils.release();
    await runner.stop();
}

await { fill, work, latency }[verb]();
await pgPool.end();
