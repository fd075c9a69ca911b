//! The protocol of claim, commit and rescue as a small model, of which every state is looked at.
//!
//! Two workers share jobs through a database that does one statement at a time. Between a worker and the database is a
//! network: what is sent may be done late, also when nobody waits for it any more, or never, and answers may be lost. A
//! worker may stand still, or die and be started again. What is done to the database is named as the functions of the
//! store are, and does to these few values what they do to the tables; `tests/tests/store.rs` holds that they do.
//!
//! Each rule is checked in every state that can be reached, and from each of these there must be a way to the end of
//! all jobs without the help of anything breaking. Three protocols that differ from ours in one point are convicted.

use std::collections::{HashMap, VecDeque};

use crate::chaos::is_in_full;

/// By what a commit is taken for that of a lease's owner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// By the random token of the claim: ours.
    Token,
    /// By the worker: who had the job before, and has it again, has it all the time.
    Worker,
    /// Not at all.
    Anybody,
}

/// What is modelled.
#[derive(Clone, Copy)]
struct Protocol {
    owner: Owner,
    /// Whether a worker keeps the token of a claim whose answer was lost: ours does.
    keeps_unanswered: bool,
    /// Claims that are made at most, over all: each has a token of its own.
    claims: u8,
}

fn ours() -> Protocol {
    Protocol { owner: Owner::Token, keeps_unanswered: true, claims: if is_in_full() { 4 } else { 3 } }
}

const WORKERS: usize = 2;
const JOBS: usize = 2;
/// What breaks at most: a process dies or stands still, an answer is lost.
const FAULTS: u8 = 2;

type Token = u8;

/// Where a job is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Place {
    Ready,
    Leased { worker: u8, token: Token },
    Ended,
}

/// A statement that was sent: the database may do it, or never see it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
enum Sent {
    Claim { worker: u8, token: Token },
    Commit { worker: u8, job: u8, token: Token },
}

/// What a worker does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Doing {
    Nothing,
    /// It waits for the answer of a claim.
    Claiming(Token),
    /// Its guest runs.
    Executing {
        job: u8,
        token: Token,
    },
    /// Its guest has ended: the commit is still to be sent.
    Finished {
        job: u8,
        token: Token,
    },
    /// It waits for the answer of a commit.
    Committing {
        job: u8,
        token: Token,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Worker {
    is_alive: bool,
    stands_still: bool,
    /// Whether the session was renewed in time, as far as the worker knows.
    is_fenced: bool,
    doing: Doing,
    /// Tokens of claims whose answer was lost.
    unanswered: Vec<Token>,
}

/// What the database knows of a worker's session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Session {
    Holds,
    Expired,
    Gone,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    jobs: [Place; JOBS],
    /// How many materializations each job has.
    made: [u8; JOBS],
    /// A commit whose claim was not the job's any more has written something.
    stale_effect: bool,
    sessions: [Session; WORKERS],
    workers: [Worker; WORKERS],
    network: Vec<Sent>,
    claims: u8,
    faults: u8,
}

/// A step, and whether it is the protocol's own rather than something that breaks.
struct Step {
    name: &'static str,
    is_fault: bool,
    to: State,
}

impl State {
    fn first() -> Self {
        let worker = Worker {
            is_alive: true,
            stands_still: false,
            is_fenced: false,
            doing: Doing::Nothing,
            unanswered: Vec::new(),
        };
        Self {
            jobs: [Place::Ready; JOBS],
            made: [0; JOBS],
            stale_effect: false,
            sessions: [Session::Holds; WORKERS],
            workers: [worker.clone(), worker],
            network: Vec::new(),
            claims: 0,
            faults: 0,
        }
    }

    fn is_over(&self) -> bool {
        self.jobs.iter().all(|place| *place == Place::Ended)
    }

    /// Here the model ends, and not the protocol.
    fn is_out_of_claims(&self, protocol: Protocol) -> bool {
        self.claims == protocol.claims && self.jobs.contains(&Place::Ready)
    }

    /// What does not hold here.
    fn violation(&self) -> Option<&'static str> {
        if self.made.iter().any(|made| *made > 1) {
            return Some("a job has two materializations");
        }
        if self.stale_effect {
            return Some("a fenced attempt has an effect");
        }
        let ended_without = |job: usize| self.jobs[job] == Place::Ended && self.made[job] != 1;
        if (0..JOBS).any(ended_without) {
            return Some("a job has ended without its materialization");
        }
        // While a worker that is not stopped runs a guest unfenced, nobody else may have been given its job.
        for (name, worker) in self.workers.iter().enumerate() {
            if let Doing::Executing { job, token } = worker.doing
                && worker.is_alive
                && !worker.stands_still
                && !worker.is_fenced
                && matches!(self.jobs[job as usize], Place::Leased { token: other, .. } if other != token)
                && self.sessions[name] == Session::Holds
            {
                return Some("a guest goes on whose job is another's");
            }
        }
        None
    }

    fn steps(&self, protocol: Protocol) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut step = |name, is_fault, to: Option<State>| {
            if let Some(mut to) = to {
                to.network.sort();
                to.faults += u8::from(is_fault);
                if to.faults <= FAULTS {
                    steps.push(Step { name, is_fault, to });
                }
            }
        };
        for worker in 0..WORKERS {
            step("claim", false, self.send_claim(worker, protocol));
            step("an answer is lost", true, self.lose_answer(worker, protocol));
            step("execute", false, self.execute(worker));
            step("commit", false, self.send_commit(worker));
            step("renew_session", false, self.renew_session(worker));
            step("return_unanswered_claims", false, self.return_unanswered_claims(worker));
            // Where the session holds, it could not be renewed: the database was away.
            step("keep_fence", self.sessions[worker] == Session::Holds, self.keep_fence(worker));
            step("time passes", false, self.expire(worker));
            step("rescue_lost_jobs", false, self.rescue_lost_jobs(worker));
            step("kill -9", true, self.kill(worker));
            step("start", false, self.start(worker));
            step("kill -STOP", true, self.stand_still(worker));
            step("kill -CONT", false, self.go_on(worker));
        }
        for (at, sent) in self.network.iter().enumerate() {
            let mut to = self.clone();
            to.network.remove(at);
            // What nobody waits for may also never be seen: whoever waits has the connection closed under it.
            let waits = to.waits_for(sent);
            if !waits {
                step("a connection closes", false, Some(to.clone()));
            }
            match *sent {
                Sent::Claim { worker, token } => {
                    for taken in to.claim_ready_jobs(worker, token) {
                        step("claim_ready_jobs", false, Some(taken));
                    }
                }
                Sent::Commit { worker, job, token } => {
                    to.commit_finished_jobs(worker, job, token, protocol);
                    step("commit_finished_jobs", false, Some(to));
                }
            }
        }
        steps
    }

    /// Of a worker that can do something.
    fn acting(&self, worker: usize) -> Option<State> {
        let Worker { is_alive, stands_still, .. } = self.workers[worker];
        (is_alive && !stands_still).then(|| self.clone())
    }

    fn waits_for(&self, sent: &Sent) -> bool {
        let (Sent::Claim { worker, .. } | Sent::Commit { worker, .. }) = *sent;
        let worker = &self.workers[worker as usize];
        worker.is_alive
            && match *sent {
                Sent::Claim { token, .. } => worker.doing == Doing::Claiming(token),
                Sent::Commit { job, token, .. } => worker.doing == Doing::Committing { job, token },
            }
    }

    fn send_claim(&self, worker: usize, protocol: Protocol) -> Option<State> {
        let mut to = self.acting(worker)?;
        let who = &mut to.workers[worker];
        if who.doing != Doing::Nothing || who.is_fenced || to.claims == protocol.claims {
            return None;
        }
        to.claims += 1;
        who.doing = Doing::Claiming(to.claims);
        to.network.push(Sent::Claim { worker: worker as u8, token: to.claims });
        Some(to)
    }

    /// The database takes one ready job, or none. An answer that nobody waits for is gone.
    fn claim_ready_jobs(&self, worker: u8, token: Token) -> Vec<State> {
        let waits = self.waits_for(&Sent::Claim { worker, token });
        let has_session = self.sessions[worker as usize] != Session::Gone;
        let mut answers = Vec::new();
        for job in 0..JOBS {
            if self.jobs[job] == Place::Ready && has_session {
                let mut to = self.clone();
                to.jobs[job] = Place::Leased { worker, token };
                if waits {
                    // It is held, and stopped at once where the fence shut meanwhile.
                    let job = job as u8;
                    to.workers[worker as usize].doing = match to.workers[worker as usize].is_fenced {
                        true => Doing::Nothing,
                        false => Doing::Executing { job, token },
                    };
                    if to.workers[worker as usize].is_fenced {
                        to.jobs[job as usize] = Place::Ready;
                    }
                }
                answers.push(to);
            }
        }
        if answers.is_empty() {
            let mut to = self.clone();
            if waits {
                to.workers[worker as usize].doing = Doing::Nothing;
            }
            answers.push(to);
        }
        answers
    }

    /// A worker gives up waiting: the statement may be done all the same, now or later.
    fn lose_answer(&self, worker: usize, protocol: Protocol) -> Option<State> {
        let mut to = self.acting(worker)?;
        let who = &mut to.workers[worker];
        match who.doing {
            Doing::Claiming(token) => {
                who.doing = Doing::Nothing;
                if protocol.keeps_unanswered {
                    who.unanswered.push(token);
                }
            }
            Doing::Committing { job, token } => who.doing = Doing::Finished { job, token },
            _ => return None,
        }
        Some(to)
    }

    fn execute(&self, worker: usize) -> Option<State> {
        let mut to = self.acting(worker)?;
        let Doing::Executing { job, token } = to.workers[worker].doing else { return None };
        to.workers[worker].doing = Doing::Finished { job, token };
        Some(to)
    }

    fn send_commit(&self, worker: usize) -> Option<State> {
        let mut to = self.acting(worker)?;
        let Doing::Finished { job, token } = to.workers[worker].doing else { return None };
        to.workers[worker].doing = Doing::Committing { job, token };
        to.network.push(Sent::Commit { worker: worker as u8, job, token });
        Some(to)
    }

    fn commit_finished_jobs(&mut self, worker: u8, job: u8, token: Token, protocol: Protocol) {
        let waits = self.waits_for(&Sent::Commit { worker, job, token });
        let lease = self.jobs[job as usize];
        let is_owner = match (protocol.owner, lease) {
            (Owner::Token, Place::Leased { token: current, .. }) => current == token,
            (Owner::Worker, Place::Leased { worker: current, .. }) => current == worker,
            (Owner::Anybody, _) => true,
            _ => false,
        };
        if is_owner {
            self.stale_effect |= !matches!(lease, Place::Leased { token: current, .. } if current == token);
            self.jobs[job as usize] = Place::Ended;
            self.made[job as usize] += 1;
        }
        // Fenced or not: it is told, looks whether an earlier try has written it, and is done with the job.
        if waits {
            self.workers[worker as usize].doing = Doing::Nothing;
        }
    }

    fn renew_session(&self, worker: usize) -> Option<State> {
        let mut to = self.acting(worker)?;
        if self.sessions[worker] == Session::Holds && !self.workers[worker].is_fenced {
            return None;
        }
        if self.sessions[worker] == Session::Gone {
            // Others have ended it: guests are stopped, and it registers anew.
            to.stop_guest(worker);
        }
        to.sessions[worker] = Session::Holds;
        to.workers[worker].is_fenced = false;
        Some(to)
    }

    /// A worker that could not renew stops its guest and gives its job back, if it is its own still.
    fn keep_fence(&self, worker: usize) -> Option<State> {
        let mut to = self.acting(worker)?;
        if to.workers[worker].is_fenced {
            return None;
        }
        to.stop_guest(worker);
        to.workers[worker].is_fenced = true;
        Some(to)
    }

    fn stop_guest(&mut self, worker: usize) {
        if let Doing::Executing { job, token } = self.workers[worker].doing {
            self.workers[worker].doing = Doing::Nothing;
            if self.jobs[job as usize] == (Place::Leased { worker: worker as u8, token }) {
                self.jobs[job as usize] = Place::Ready;
            }
        }
    }

    /// The session's time is over. The worker's own time was over before, unless it stood still.
    fn expire(&self, worker: usize) -> Option<State> {
        let Worker { is_alive, stands_still, is_fenced, .. } = self.workers[worker];
        let can = self.sessions[worker] == Session::Holds && (!is_alive || stands_still || is_fenced);
        let mut to = can.then(|| self.clone())?;
        to.sessions[worker] = Session::Expired;
        Some(to)
    }

    /// By whichever process.
    fn rescue_lost_jobs(&self, dead: usize) -> Option<State> {
        let mut to = (self.sessions[dead] == Session::Expired).then(|| self.clone())?;
        for place in &mut to.jobs {
            if matches!(*place, Place::Leased { worker, .. } if worker as usize == dead) {
                *place = Place::Ready;
            }
        }
        to.sessions[dead] = Session::Gone;
        Some(to)
    }

    fn return_unanswered_claims(&self, worker: usize) -> Option<State> {
        let mut to = self.acting(worker)?;
        let tokens = &self.workers[worker].unanswered;
        let mut found = false;
        for place in &mut to.jobs {
            if matches!(*place, Place::Leased { token, .. } if tokens.contains(&token)) {
                *place = Place::Ready;
                found = true;
            }
        }
        found.then_some(to)
    }

    fn kill(&self, worker: usize) -> Option<State> {
        let mut to = self.workers[worker].is_alive.then(|| self.clone())?;
        to.workers[worker] = Worker { is_alive: false, ..Self::first().workers[worker].clone() };
        Some(to)
    }

    /// In its place, under a new name: the one that died has no session left, and nothing of it is on its way.
    fn start(&self, worker: usize) -> Option<State> {
        let is_gone = !self.workers[worker].is_alive && self.sessions[worker] == Session::Gone;
        let on_its_way = self.network.iter().any(|sent| match sent {
            Sent::Claim { worker: of, .. } | Sent::Commit { worker: of, .. } => *of as usize == worker,
        });
        let mut to = (is_gone && !on_its_way).then(|| self.clone())?;
        to.workers[worker].is_alive = true;
        to.sessions[worker] = Session::Holds;
        Some(to)
    }

    fn stand_still(&self, worker: usize) -> Option<State> {
        let mut to = self.acting(worker)?;
        to.workers[worker].stands_still = true;
        Some(to)
    }

    /// It notices by its clock that its time was over, before it does anything else.
    fn go_on(&self, worker: usize) -> Option<State> {
        let mut to = self.workers[worker].stands_still.then(|| self.clone())?;
        to.workers[worker].stands_still = false;
        Some(to)
    }
}

/// What was found.
struct Explored {
    states: usize,
    /// The first violation, and the way there.
    violation: Option<(&'static str, Vec<&'static str>)>,
    /// A state from which the jobs cannot all end, by way of what.
    stuck: Option<Vec<&'static str>>,
}

/// Looks at every state that can be reached.
fn explore(protocol: Protocol) -> Explored {
    let mut number: HashMap<State, usize> = HashMap::from([(State::first(), 0)]);
    let mut came: Vec<(usize, &'static str)> = vec![(0, "")];
    let mut before: Vec<Vec<usize>> = vec![Vec::new()];
    let mut over = Vec::new();
    let mut queue = VecDeque::from([State::first()]);
    let mut at = 0;
    while let Some(state) = queue.pop_front() {
        if let Some(violation) = state.violation() {
            return Explored { states: came.len(), violation: Some((violation, way(&came, at))), stuck: None };
        }
        if state.is_over() || state.is_out_of_claims(protocol) {
            over.push(at);
        }
        for Step { name, is_fault, to } in state.steps(protocol) {
            let next = *number.entry(to).or_insert_with_key(|to| {
                queue.push_back(to.clone());
                came.push((at, name));
                before.push(Vec::new());
                came.len() - 1
            });
            // A way to the end that needs something to break is none.
            if !is_fault {
                before[next].push(at);
            }
        }
        at += 1;
    }
    let mut ends = vec![false; came.len()];
    while let Some(state) = over.pop() {
        if !std::mem::replace(&mut ends[state], true) {
            over.extend(&before[state]);
        }
    }
    let stuck = ends.iter().position(|ends| !ends).map(|state| way(&came, state));
    Explored { states: came.len(), violation: None, stuck }
}

fn way(came: &[(usize, &'static str)], mut at: usize) -> Vec<&'static str> {
    let mut steps = Vec::new();
    while at > 0 {
        steps.push(came[at].1);
        at = came[at].0;
    }
    steps.reverse();
    steps
}

#[test]
fn no_order_of_steps_and_faults_loses_a_job_makes_one_twice_or_lets_a_fenced_attempt_write() {
    let explored = explore(ours());
    println!("{} states", explored.states);
    assert_eq!(explored.violation, None);
    assert_eq!(explored.stuck, None);
    assert!(explored.states > 10_000, "only {} states: something cannot happen", explored.states);
}

#[test]
fn protocols_without_one_of_its_parts_are_convicted() {
    let (violation, _) = explore(Protocol { owner: Owner::Anybody, ..ours() }).violation.expect("anybody may commit");
    assert!(violation.contains("fenced attempt") || violation.contains("two materializations"), "{violation}");
    // The job came back to the worker that had lost it, and its first attempt commits for the second.
    let (violation, way) = explore(Protocol { owner: Owner::Worker, ..ours() }).violation.expect("workers come back");
    assert_eq!(violation, "a fenced attempt has an effect", "{way:?}");
    // The worker lives and renews its session: nobody ever takes the job from it.
    let explored = explore(Protocol { keeps_unanswered: false, ..ours() });
    let way = explored.stuck.expect("a lease of which nobody knows");
    assert!(way.contains(&"an answer is lost") && way.contains(&"claim_ready_jobs"), "{way:?}");
}
