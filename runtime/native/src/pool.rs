//! A team of threads that stays: one job at a time, done by whoever of them is there.
//!
//! A job is phases of shares. A phase is over when all of its shares are done, which members that hold none are not asked about: one
//! that lost its core to another process while it had nothing is not waited for, and finds later that its phases
//! are over. So code outside of shares must not touch what shares write.
//!
//! The caller is a member. Waiting is spinning at first, because steps of a plan take microseconds; then sleeping, because whoever is waited for
//! has lost its core, and a core that is left to others now is given back sooner.
//! A member that panics ends the job: all others leave it, and it fails instead of hanging.

use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Rounds of spinning before a member sleeps within a job: some hundred microseconds, at about 40 ns each.
const SPINS: u32 = 4000;

/// The same between jobs: longer than it takes to choose a token.
const IDLE_SPINS: u32 = 40_000;

/// A share that no phase has.
const NO_SHARE: usize = 1 << 40;

/// In [`Shared::phase`]: 24 bits count phases, 12 the members that hold or held shares of this one, 28 the shares taken.
const PHASE: u64 = 1 << 40;
const INSIDE: u64 = 1 << 28;

type Job = dyn Fn(&Member<'_>) + Sync;

/// The team.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One job at a time.
    busy: Mutex<()>,
}

struct Shared {
    members: usize,
    job: UnsafeCell<Option<*const Job>>,
    /// Twice the number of jobs so far, and 1 more while nobody may enter the last one any more; in the upper half the
    /// members that are in it.
    entry: AtomicU64,
    phase: AtomicU64,
    /// Set by a panic until the job is over.
    broken: AtomicBool,
    stop: AtomicBool,
    /// Members that sleep, or are about to.
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("members", &self.members).finish_non_exhaustive()
    }
}

// SAFETY: `job` is written by `Pool::run` only while no member is in a job nor may enter one, before the release of `entry`,
// and read by members that entered; what it points to is `Sync`.
unsafe impl Send for Shared {}
// SAFETY: see above.
unsafe impl Sync for Shared {}

/// In [`Shared::entry`].
const ENTERED: u64 = 1 << 32;
const CLOSED: u64 = 1;

impl Shared {
    /// Waits until `done` says so: spins for some rounds, then sleeps.
    fn wait(&self, spins: u32, done: impl Fn() -> bool) {
        for _ in 0..spins {
            if done() {
                return;
            }
            std::hint::spin_loop();
        }
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        // Either `done` sees the change below, or whoever changes sees this sleeper: both are sequentially consistent.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !done() {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// To be called after every change that somebody may wait for.
    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
    }

    /// Enters the job number `job`, if it is still open.
    fn enter(&self, job: u64) -> bool {
        let open = |entry: u64| (entry % ENTERED == job).then_some(entry + ENTERED);
        self.entry.fetch_update(Ordering::SeqCst, Ordering::SeqCst, open).is_ok()
    }

    fn leave(&self) {
        self.entry.fetch_sub(ENTERED, Ordering::SeqCst);
        self.wake();
    }
}

/// One thread within a job.
#[derive(Debug)]
pub struct Member<'a> {
    shared: &'a Shared,
    /// The phase that it is in, which may be over.
    phase: Cell<u64>,
    /// Whether it took a share of it.
    inside: Cell<bool>,
}

/// A member panicked: the job was given up.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub String);

/// What members that were waiting panic with when the team breaks.
struct Leave;

impl Member<'_> {
    /// The next share of this phase: 0, 1, 2, …; each number is given to one member. A number greater than that of any share when
    /// the phase is over. A phase ends with a barrier.
    #[inline]
    pub fn take(&self) -> usize {
        let phase = &self.shared.phase;
        let before = match self.inside.get() {
            // The phase cannot end while this member is inside.
            true => phase.fetch_add(1, Ordering::AcqRel),
            false => {
                let enter = |now: u64| (now / PHASE == self.phase.get()).then_some(now + INSIDE + 1);
                match phase.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter) {
                    Ok(before) => before,
                    Err(_) => return NO_SHARE,
                }
            }
        };
        self.inside.set(true);
        (before % INSIDE) as usize
    }

    /// Members of the team.
    pub fn members(&self) -> usize {
        self.shared.members
    }

    /// Ends a phase: returns when all its shares are done; what was written in them can be read in those of the next.
    pub fn barrier(&self) {
        let (shared, mine) = (self.shared, self.phase.get());
        self.phase.set((mine + 1) % (u64::MAX / PHASE + 1));
        let was_inside = self.inside.replace(false);
        // Everyone takes shares until there are none, so the last to leave knows that all are done.
        let leave = |now: u64| {
            let others = now % PHASE / INSIDE - u64::from(was_inside);
            match (now / PHASE == mine, others) {
                (false, _) => None,
                (true, 0) => Some(self.phase.get() * PHASE),
                (true, _) => was_inside.then(|| now - INSIDE),
            }
        };
        match shared.phase.fetch_update(Ordering::SeqCst, Ordering::SeqCst, leave) {
            Ok(before) if before % PHASE / INSIDE == u64::from(was_inside) => return shared.wake(),
            Err(now) if now / PHASE != mine => return,
            _ => {}
        }
        let is_over = || shared.phase.load(Ordering::SeqCst) / PHASE != mine;
        shared.wait(SPINS, || is_over() || shared.broken.load(Ordering::SeqCst));
        if !is_over() {
            resume_unwind(Box::new(Leave));
        }
    }
}

impl Pool {
    /// A team of that many threads, this one included; at least 1. Fewer where the system does not give as many.
    pub fn new(threads: usize) -> Pool {
        let threads = threads.clamp(1, 1024);
        // The number of members must be known before the first of them works: they start when it is.
        let (send, receive): (Vec<_>, Vec<_>) = (1..threads).map(|_| std::sync::mpsc::channel::<Arc<Shared>>()).unzip();
        let mut workers = Vec::new();
        for (index, receive) in receive.into_iter().enumerate() {
            let name = format!("dwindle-{}", index + 1);
            let body = move || {
                if let Ok(shared) = receive.recv() {
                    work(&shared);
                }
            };
            match std::thread::Builder::new().name(name).spawn(body) {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    tracing::warn!("thread {}: {error}; going on with fewer", index + 1);
                    break;
                }
            }
        }
        let shared = Arc::new(Shared {
            members: workers.len() + 1,
            job: UnsafeCell::new(None),
            entry: AtomicU64::new(CLOSED),
            phase: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        });
        // Channels of threads that could not be started have no receiver.
        send.iter().for_each(|send| drop(send.send(shared.clone())));
        Pool { shared, workers, busy: Mutex::new(()) }
    }

    /// Members of the team.
    pub fn members(&self) -> usize {
        self.shared.members
    }

    /// Has the members do `job`, and returns when all of its phases are over and nobody is in it.
    ///
    /// # Errors
    /// [`Broken`] with what the first member that panicked said.
    pub fn run(&self, job: &(dyn Fn(&Member<'_>) + Sync)) -> Result<(), Broken> {
        let _one_at_a_time = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        shared.phase.store(0, Ordering::SeqCst);
        shared.broken.store(false, Ordering::SeqCst);
        // SAFETY: only the lifetime is changed; this function returns after the last member has left it.
        let job: *const Job = unsafe { std::mem::transmute::<*const (dyn Fn(&Member<'_>) + Sync + '_), _>(job) };
        // SAFETY: the last job is closed and nobody is in it, so none reads it.
        unsafe { *shared.job.get() = Some(job) };
        // Jobs are numbered by even numbers of 32 bits.
        let number = (shared.entry.load(Ordering::SeqCst) + 1) % ENTERED;
        shared.entry.store(number, Ordering::SeqCst);
        shared.wake();
        let own = member(shared, job);
        shared.entry.fetch_or(CLOSED, Ordering::SeqCst);
        shared.wait(SPINS, || shared.entry.load(Ordering::SeqCst) < ENTERED);
        match (own, shared.broken.load(Ordering::SeqCst)) {
            (_, false) => Ok(()),
            (Some(why), true) => Err(Broken(why)),
            (None, true) => Err(Broken("a worker panicked".to_owned())),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake();
        // A worker catches its panics, so there is nothing to learn from how it ended.
        self.workers.drain(..).for_each(|worker| drop(worker.join()));
    }
}

/// Does the job as one member; the message of its panic, if it did.
fn member(shared: &Shared, job: *const Job) -> Option<String> {
    // SAFETY: `Pool::run` keeps the job alive until all members have left it.
    let job = unsafe { &*job };
    let member = Member { shared, phase: Cell::new(0), inside: Cell::new(false) };
    let panic = catch_unwind(AssertUnwindSafe(|| job(&member))).err()?;
    shared.broken.store(true, Ordering::SeqCst);
    shared.wake();
    if panic.is::<Leave>() {
        return None;
    }
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
}

fn work(shared: &Shared) {
    // No job has this number.
    let mut done = CLOSED;
    loop {
        let next = || {
            let job = shared.entry.load(Ordering::SeqCst) % ENTERED;
            (job != done && job & CLOSED == 0).then_some(job)
        };
        shared.wait(IDLE_SPINS, || shared.stop.load(Ordering::SeqCst) || next().is_some());
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        // It may be over by now.
        let Some(job) = next().filter(|&job| shared.enter(job)) else { continue };
        done = job;
        // SAFETY: it was written before the job could be entered, and is not written before this member has left it.
        if let Some(job) = unsafe { *shared.job.get() } {
            member(shared, job);
        }
        shared.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Phases see what the phases before wrote, and every share is done once.
    #[test]
    fn shares_and_barriers() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for round in 0..200 {
                let cells: Vec<AtomicUsize> = (0..37).map(|_| AtomicUsize::new(0)).collect();
                pool.run(&|member| {
                    for phase in 0..4 {
                        loop {
                            let share = member.take();
                            let Some(cell) = cells.get(share) else { break };
                            assert_eq!(cell.fetch_add(1, Ordering::Relaxed), phase, "round {round}");
                        }
                        member.barrier();
                        if member.take() == 0 {
                            assert!(cells.iter().all(|cell| cell.load(Ordering::Relaxed) == phase + 1));
                        }
                        member.barrier();
                    }
                })
                .unwrap();
            }
        }
    }

    #[test]
    fn a_panic_ends_the_job_and_not_the_team() {
        let pool = Pool::new(4);
        for _ in 0..20 {
            let result = pool.run(&|member| {
                while let share @ ..4 = member.take() {
                    assert_ne!(share, 2, "share 2 is cursed");
                }
                member.barrier();
                member.barrier();
            });
            assert!(result.is_err_and(|Broken(why)| why.contains("cursed") || why.contains("worker")));
            let done = AtomicUsize::new(0);
            pool.run(&|member| {
                while member.take() < 4 {
                    done.fetch_add(1, Ordering::Relaxed);
                }
                member.barrier();
            })
            .unwrap();
            assert_eq!(done.into_inner(), 4);
        }
    }

    /// A member that does nothing for a long time holds nobody up but at the end, nor does it do what is done already.
    #[test]
    fn who_is_away_is_not_waited_for() {
        let pool = Pool::new(3);
        for _ in 0..5 {
            let (away, phases) = (AtomicBool::new(false), AtomicUsize::new(0));
            pool.run(&|member| {
                for phase in 0..100 {
                    if phase == 1 && !away.swap(true, Ordering::Relaxed) {
                        // Until all others are through.
                        while phases.load(Ordering::Relaxed) < 100 {
                            std::thread::yield_now();
                        }
                    }
                    while member.take() < 1 {
                        assert_eq!(phases.fetch_add(1, Ordering::Relaxed), phase);
                    }
                    member.barrier();
                }
            })
            .unwrap();
            assert_eq!(phases.into_inner(), 100);
        }
    }

    /// More members than cores, and jobs of which each is over before all have heard of it.
    #[test]
    fn short_jobs_of_many_members() {
        let pool = Pool::new(16);
        let sum = AtomicUsize::new(0);
        for _ in 0..3000 {
            pool.run(&|member| {
                while member.take() < 2 {
                    sum.fetch_add(1, Ordering::Relaxed);
                }
                member.barrier();
            })
            .unwrap();
        }
        assert_eq!(sum.into_inner(), 6000);
    }
}
