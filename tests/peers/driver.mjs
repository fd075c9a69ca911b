// What the drivers of node have in common: their arguments, and the clock that begins with the first job and ends when
// the database says that nothing is left.

/** How long a driver waits for the database to say so after the last function was called. */
const DRAIN_MS = 20_000;

/** The arguments of a driver: what to do, how many, and how. */
export function asked() {
    const [verb, count, mode] = process.argv.slice(2);
    const n = Number(count);
    if (!verb || !Number.isInteger(n) || n < 1) {
        throw new Error("tell it a verb and a positive number");
    }
    return { verb, count: n, mode };
}

/** Counts the calls of an empty function, and resolves with the last of them. */
export function counter(jobs) {
    let called = 0;
    let finish;
    const last = new Promise((resolve) => (finish = resolve));
    return {
        last,
        call() {
            called += 1;
            if (called === jobs) finish();
        },
    };
}

/** Runs `work`, which must end with the last function, then waits until `left` says 0. */
export async function timed(jobs, work, left) {
    const started = performance.now();
    const cpu = process.cpuUsage();
    await work();
    const called = performance.now();
    let rest;
    while ((rest = await left()) > 0 && performance.now() - called < DRAIN_MS) {
        await sleep(10);
    }
    const seconds = (performance.now() - started) / 1000;
    const { user, system } = process.cpuUsage(cpu);
    say({ jobs, seconds, left: rest, cpu_seconds: (user + system) / 1e6 });
}

/** One line for whoever measures. */
export function say(found) {
    process.stdout.write(`${JSON.stringify(found)}\n`);
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
