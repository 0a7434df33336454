//! A team of threads that stays: one job at a time, done by all of them, with barriers inside.
//!
//! The caller is member 0. Waiting is spinning at first, because steps of a plan take microseconds; then it yields, so that
//! other processes that keep the cores busy do not stop the member that is waited for; between jobs it sleeps in the end.
//! A member that panics breaks the team's barriers: all others leave the job, and the job fails instead of hanging.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Rounds of spinning before a wait yields: some ten microseconds, at about 40 ns each.
const SPINS: u32 = 400;

/// Rounds of yielding before an idle member sleeps: longer than it takes to choose a token.
const YIELDS: u32 = 1000;

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
    /// Counts jobs; written under `sleep` so that no sleeper misses one.
    started: AtomicUsize,
    job: UnsafeCell<Option<*const Job>>,
    /// Members that have not finished the job.
    running: AtomicUsize,
    stop: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
    arrived: AtomicUsize,
    /// Counts barriers that everyone has reached.
    generation: AtomicUsize,
    /// Set by a panic until the job is over.
    broken: AtomicBool,
    /// Shares of the present phase that were taken.
    taken: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("members", &self.members).finish_non_exhaustive()
    }
}

// SAFETY: `job` is written by `Pool::run` only while no member runs, before the release of `started`, and read after its
// acquisition; what it points to is `Sync`.
unsafe impl Send for Shared {}
// SAFETY: see above.
unsafe impl Sync for Shared {}

/// One thread within a job.
#[derive(Debug)]
pub struct Member<'a> {
    shared: &'a Shared,
}

/// A member panicked: the job was given up.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub String);

/// What members that were waiting panic with when the team breaks.
struct Leave;

impl Member<'_> {
    /// The next share of this phase: 0, 1, 2, …; each number is given to one member. A phase ends with a barrier.
    #[inline]
    pub fn take(&self) -> usize {
        self.shared.taken.fetch_add(1, Ordering::Relaxed)
    }

    /// Members of the team.
    pub fn members(&self) -> usize {
        self.shared.members
    }

    /// Waits until all members are here; what they wrote before can be read after it.
    pub fn barrier(&self) {
        let shared = self.shared;
        let generation = shared.generation.load(Ordering::Acquire);
        if shared.arrived.fetch_add(1, Ordering::AcqRel) + 1 == shared.members {
            shared.arrived.store(0, Ordering::Relaxed);
            shared.taken.store(0, Ordering::Relaxed);
            shared.generation.store(generation.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut wait = 0;
        while shared.generation.load(Ordering::Acquire) == generation {
            if shared.broken.load(Ordering::Acquire) {
                resume_unwind(Box::new(Leave));
            }
            pause(&mut wait);
        }
    }
}

fn pause(wait: &mut u32) {
    if *wait < SPINS {
        *wait += 1;
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

impl Pool {
    /// A team of that many threads, this one included; at least 1. Fewer where the system does not give as many.
    pub fn new(threads: usize) -> Pool {
        let threads = threads.clamp(1, 1024);
        // The number of members must be known before the first of them waits at a barrier: they start when it is.
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
            started: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            running: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            arrived: AtomicUsize::new(0),
            generation: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            taken: AtomicUsize::new(0),
        });
        // Channels of threads that could not be started have no receiver.
        send.iter().for_each(|send| drop(send.send(shared.clone())));
        Pool { shared, workers, busy: Mutex::new(()) }
    }

    /// Members of the team.
    pub fn members(&self) -> usize {
        self.shared.members
    }

    /// Has all members do `job`, and returns when all have.
    ///
    /// # Errors
    /// [`Broken`] with what the first member that panicked said.
    pub fn run(&self, job: &(dyn Fn(&Member<'_>) + Sync)) -> Result<(), Broken> {
        let _one_at_a_time = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        shared.arrived.store(0, Ordering::Relaxed);
        shared.taken.store(0, Ordering::Relaxed);
        shared.broken.store(false, Ordering::Relaxed);
        shared.running.store(shared.members - 1, Ordering::Relaxed);
        // SAFETY: only the lifetime is changed; this function returns after the last member has finished with it.
        let job: *const Job = unsafe { std::mem::transmute::<*const (dyn Fn(&Member<'_>) + Sync + '_), _>(job) };
        // SAFETY: no member runs, so none reads it.
        unsafe { *shared.job.get() = Some(job) };
        {
            let _sleepers = shared.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            shared.started.fetch_add(1, Ordering::Release);
        }
        shared.wake.notify_all();
        let own = member(shared, job);
        let mut wait = 0;
        while shared.running.load(Ordering::Acquire) > 0 {
            pause(&mut wait);
        }
        match (own, shared.broken.load(Ordering::Acquire)) {
            (_, false) => Ok(()),
            (Some(why), true) => Err(Broken(why)),
            (None, true) => Err(Broken("a worker panicked".to_owned())),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let _sleepers = self.shared.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.stop.store(true, Ordering::Release);
        }
        self.shared.wake.notify_all();
        // A worker catches its panics, so there is nothing to learn from how it ended.
        self.workers.drain(..).for_each(|worker| drop(worker.join()));
    }
}

/// Does the job as one member; the message of its panic, if it did.
fn member(shared: &Shared, job: *const Job) -> Option<String> {
    // SAFETY: `Pool::run` keeps the job alive until all members have finished.
    let job = unsafe { &*job };
    let panic = catch_unwind(AssertUnwindSafe(|| job(&Member { shared }))).err()?;
    shared.broken.store(true, Ordering::Release);
    if panic.is::<Leave>() {
        return None;
    }
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
}

fn work(shared: &Shared) {
    let mut done = 0;
    loop {
        let mut wait = 0;
        let mut yields = 0;
        loop {
            if shared.stop.load(Ordering::Acquire) {
                return;
            }
            if shared.started.load(Ordering::Acquire) != done {
                break;
            }
            pause(&mut wait);
            yields += u32::from(wait == SPINS);
            if yields > YIELDS {
                let mut sleepers = shared.sleep.lock().unwrap_or_else(PoisonError::into_inner);
                while shared.started.load(Ordering::Acquire) == done && !shared.stop.load(Ordering::Acquire) {
                    sleepers = shared.wake.wait(sleepers).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        done = done.wrapping_add(1);
        // SAFETY: written before `started` was, and not again before this member has finished.
        if let Some(job) = unsafe { *shared.job.get() } {
            member(shared, job);
        }
        shared.running.fetch_sub(1, Ordering::Release);
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
                        assert!(cells.iter().all(|cell| cell.load(Ordering::Relaxed) == phase + 1));
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
                if member.take() == 2 {
                    panic!("share 2 is cursed");
                }
                member.barrier();
                member.barrier();
            });
            assert!(result.is_err());
            let done = AtomicUsize::new(0);
            pool.run(&|member| {
                done.fetch_add(1, Ordering::Relaxed);
                member.barrier();
            })
            .unwrap();
            assert_eq!(done.into_inner(), 4);
        }
    }
}
