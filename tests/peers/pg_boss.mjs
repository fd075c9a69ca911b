// pg-boss: loops that fetch, call an empty function for each job, and complete. Its own `work` polls every half second at
// most often, which is no measure of what its queue can do.

import { PgBoss } from "pg-boss";

import { asked, counter, timed } from "./driver.mjs";

const QUEUE = "noop";
const INSERTED_AT_ONCE = 5_000;

// Loops, and jobs that each fetches at a time.
const MODES = { single: [24, 1], batched: [4, 500] };

const { verb, count, mode } = asked();
const boss = new PgBoss({
    host: process.env.PGHOST,
    user: process.env.PGUSER,
    database: process.env.PGDATABASE,
    max: 26,
    schedule: false,
});
boss.on("error", (error) => console.error(error));
await boss.start();

async function fill() {
    await boss.createQueue(QUEUE);
    for (let begin = 0; begin < count; begin += INSERTED_AT_ONCE) {
        const many = Math.min(INSERTED_AT_ONCE, count - begin);
        await boss.insert(QUEUE, Array.from({ length: many }, (_, n) => ({ data: { n: begin + n } })));
    }
}

async function work() {
    if (!(mode in MODES)) throw new Error(`a mode is one of ${Object.keys(MODES)}`);
    const [loops, batchSize] = MODES[mode];
    const { call } = counter(count);
    const noop = async () => call();
    const loop = async () => {
        for (;;) {
            const jobs = await boss.fetch(QUEUE, { batchSize });
            if (jobs.length === 0) return;
            await Promise.all(jobs.map(noop));
            await boss.complete(
                QUEUE,
                jobs.map((job) => job.id),
            );
        }
    };
    const left = async () => {
        const sql = "select count(*) from pgboss.job where name = $1 and state < 'completed'";
        const { rows } = await boss.getDb().executeSql(sql, [QUEUE]);
        return Number(rows[0].count);
    };
    await timed(count, () => Promise.all(Array.from({ length: loops }, loop)), left);
}

await { fill, work }[verb]();
await boss.stop({ graceful: false });
