//! Locks that a thread takes, also those that nobody else wants: each of its instructions is looked at.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::binaries;

use crate::calls::{engine, thread};
use crate::code::{by_file, entered, functions};
use crate::scene::{Load, Scene};
use crate::steps::follow;

/// So long a thread may be followed. It is some thousand times slower meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at how far it is.
const WHILE: Duration = Duration::from_millis(100);
/// Datagrams that have to pass meanwhile: several rounds of an engine; and instructions that have to be done.
const ENOUGH: u64 = 100;
const MANY: u64 = 60_000;
/// Where the code of locks is, whoever wrote it.
const LOCKS: [&str; 8] = [
    "/sync/mutex",
    "/sync/rwlock",
    "/sync/once",
    "/sync/condvar",
    "/sync/poison",
    "/reentrant_lock",
    "/spin-",
    "lock_api",
];
/// What the C library has for locks and memory.
const FOREIGN: [&str; 12] = [
    "pthread_mutex_lock",
    "pthread_mutex_trylock",
    "pthread_rwlock_rdlock",
    "pthread_rwlock_wrlock",
    "pthread_spin_lock",
    "pthread_cond_wait",
    "malloc",
    "calloc",
    "realloc",
    "free",
    "posix_memalign",
    "aligned_alloc",
];

/// What a thread of the program was seen to do.
struct Seen {
    functions: BTreeSet<String>,
    /// Functions of the C library that are locks or memory.
    foreign: Vec<&'static str>,
}

impl Seen {
    fn locks(&self) -> Vec<&str> {
        let is_lock = |function: &&str| LOCKS.iter().any(|lock| function.contains(lock));
        self.functions.iter().map(String::as_str).filter(is_lock).chain(self.foreign.iter().copied()).collect()
    }
}

/// Follows a thread until `enough` datagrams have passed. Nobody talks when that is none.
fn look(scene: &mut Scene, thread: i32, enough: u64) -> Result<Seen> {
    scene.be_patient();
    let started = Instant::now();
    let (steps, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    // What passed before the first step is not counted.
    let (mut before, mut passed) = (None, 0);
    let addresses = std::thread::scope(|scope| {
        let following = scope.spawn(|| follow(thread, &steps, &stop));
        let talked = (|| {
            while passed < enough || steps.load(Ordering::Relaxed) < MANY {
                if enough > 0 {
                    scene.talk(WHILE)?;
                } else {
                    std::thread::sleep(WHILE);
                }
                if steps.load(Ordering::Relaxed) > 0 {
                    passed = scene.passed() - *before.get_or_insert(scene.passed());
                }
                ensure!(!following.is_finished(), "the thread cannot be followed");
                ensure!(started.elapsed() < PATIENCE, "only {passed} datagrams passed, and {steps:?} instructions");
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        let followed = following.join().map_err(|_| anyhow::anyhow!("the tracer panicked"))?;
        talked.and(followed)
    })?;
    let program = binaries::host()?.canonicalize()?;
    let (mut all, mut foreign) = (BTreeSet::new(), Vec::new());
    for (file, addresses) in by_file(scene.process(), &addresses)? {
        if file == program {
            all = functions(&program, &addresses)?;
        } else if file.is_absolute() {
            foreign.extend(entered(&file, &addresses, &FOREIGN)?);
        }
    }
    println!("  {passed} datagrams, {steps:?} instructions, {} functions", all.len());
    Ok(Seen { functions: all, foreign })
}

/// The switch's own thread takes locks that hardly anybody else wants, and is seen to.
pub(crate) fn seen() -> Result<()> {
    let mut scene = Scene::set(Load::Switched, "always")?;
    let thread = thread(scene.process(), "vswitch")?;
    let seen = look(&mut scene, thread, 0)?;
    let locks = seen.locks();
    ensure!(locks.iter().any(|lock| lock.contains("/sync/mutex")), "it was seen to take {locks:?} alone");
    scene.close()
}

/// The engine takes none.
pub(crate) fn none(load: Load) -> Result<()> {
    let mut scene = Scene::set(load, "always")?;
    let thread = engine(scene.process())?;
    scene.warm()?;
    let seen = look(&mut scene, thread, ENOUGH)?;
    // That names and places are known: this is where a machine's frames are taken from.
    seen.functions.iter().find(|it| it.contains("/vhost_user/queue/")).context("nothing is known of its functions")?;
    let locks = seen.locks();
    ensure!(locks.is_empty(), "the engine reached {locks:?}");
    scene.close()
}
