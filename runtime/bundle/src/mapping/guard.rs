//! The signal handler that knows which addresses are mapped files.
//!
//! The handler runs wherever a page is missing, so it takes no lock and allocates nothing: it walks a list whose places are never
//! freed, only used again, and calls nothing but `write` and `_exit`.

use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

/// Bytes kept of a file's name; the longest that common file systems have.
const NAME: usize = 255;

/// One mapping, or a place for one.
struct Place {
    next: AtomicPtr<Place>,
    taken: AtomicBool,
    /// The first address, and the one behind the last; equal where the place is free.
    begin: AtomicUsize,
    end: AtomicUsize,
    name: [AtomicU8; NAME],
    length: AtomicUsize,
}

/// All places, the newest first.
static PLACES: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());

/// Held while the list grows.
static GROWING: Mutex<()> = Mutex::new(());

/// How the process ends.
static CODE: AtomicI32 = AtomicI32::new(0);

/// What handled the signal before.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

/// A mapping that the handler knows until this is dropped.
pub struct Watched(&'static Place);

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

impl Watched {
    /// Tells the handler that `bytes` are those of the file at `path`.
    pub fn new(bytes: &[u8], path: &Path) -> Watched {
        let place = places().find(|place| !place.taken.swap(true, Ordering::AcqRel)).unwrap_or_else(add);
        let name = printable(path);
        for (to, &from) in place.name.iter().zip(name.as_bytes()) {
            to.store(from, Ordering::Relaxed);
        }
        place.length.store(name.len(), Ordering::Relaxed);
        place.begin.store(bytes.as_ptr().addr(), Ordering::Relaxed);
        place.end.store(bytes.as_ptr().addr() + bytes.len(), Ordering::Release);
        Watched(place)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.end.store(0, Ordering::Release);
        self.0.taken.store(false, Ordering::Release);
    }
}

fn places() -> impl Iterator<Item = &'static Place> {
    // SAFETY: places are leaked when they are made, so every pointer in the list stays valid.
    let at = |place: *mut Place| unsafe { place.as_ref() };
    std::iter::successors(at(PLACES.load(Ordering::Acquire)), move |place| at(place.next.load(Ordering::Acquire)))
}

/// A new place, taken.
fn add() -> &'static Place {
    let _alone = GROWING.lock().unwrap_or_else(PoisonError::into_inner);
    let place = Box::leak(Box::new(Place {
        next: AtomicPtr::new(PLACES.load(Ordering::Acquire)),
        taken: AtomicBool::new(true),
        begin: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        name: [const { AtomicU8::new(0) }; NAME],
        length: AtomicUsize::new(0),
    }));
    PLACES.store(place, Ordering::Release);
    place
}

/// The file's name without what a terminal would obey, at most [`NAME`] bytes of it.
fn printable(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let obeyed = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut printable = String::new();
    for c in name.chars().map(|c| if obeyed(c) { '?' } else { c }) {
        if printable.len() + c.len_utf8() > NAME {
            break;
        }
        printable.push(c);
    }
    printable
}

/// Installs the handler, once; later calls change the code alone.
pub fn install(code: u8) {
    static ONCE: Once = Once::new();
    CODE.store(i32::from(code), Ordering::Release);
    ONCE.call_once(|| {
        let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: `sigaction` is a plain struct for which zeros are valid; the handler has the signature that SA_SIGINFO asks for,
        // and calls only what may be called in a handler.
        unsafe {
            // The one before is stored before ours can run.
            libc::sigaction(libc::SIGBUS, ptr::null(), previous.as_mut_ptr());
            PREVIOUS.store(Box::leak(Box::new(previous.assume_init())), Ordering::Release);
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = on_fault as *const () as usize;
            // On the stack that Rust gives each of its threads for signals, where there is one.
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &action, ptr::null_mut());
        }
    });
}

extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel gives a valid siginfo, whose address is that of the fault for SIGBUS.
    let address = unsafe { (*info).si_addr() }.addr();
    for place in places() {
        let end = place.end.load(Ordering::Acquire);
        if (place.begin.load(Ordering::Relaxed)..end).contains(&address) {
            tell(place);
        }
    }
    // SAFETY: it was leaked before this handler was installed.
    let previous = unsafe { &*PREVIOUS.load(Ordering::Acquire) };
    // SAFETY: the previous handler is called as its flags say; restoring the default has the fault happen again without us.
    unsafe {
        match previous.sa_sigaction {
            libc::SIG_DFL | libc::SIG_IGN => {
                let mut default: libc::sigaction = MaybeUninit::zeroed().assume_init();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &default, ptr::null_mut());
            }
            handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
                type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                std::mem::transmute::<usize, Handler>(handler)(signal, info, context);
            }
            handler => std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler)(signal),
        }
    }
}

/// Says which file it was, and ends the process. One `write`, so that lines of several threads do not mix.
fn tell(place: &Place) -> ! {
    const BEFORE: &[u8] = b"error: `";
    const AFTER: &[u8] = b"` was shortened by another program while it was in use; copy or make it again\n";
    let mut line = [0; BEFORE.len() + NAME + AFTER.len()];
    let name = place.name.iter().take(place.length.load(Ordering::Relaxed)).map(|byte| byte.load(Ordering::Relaxed));
    let all = BEFORE.iter().copied().chain(name).chain(AFTER.iter().copied());
    let mut length = 0;
    for (to, from) in line.iter_mut().zip(all) {
        *to = from;
        length += 1;
    }
    static TOLD: AtomicBool = AtomicBool::new(false);
    // SAFETY: the line has so many bytes; both calls may be made in a handler. Several threads may get here at once.
    unsafe {
        if !TOLD.swap(true, Ordering::AcqRel) {
            libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), length);
            libc::_exit(CODE.load(Ordering::Acquire));
        }
        // Another thread is telling, and ends the process.
        loop {
            libc::pause();
        }
    }
}
