//! Plans of one step: refused, or executed within their buffers by every instruction set, or the one that `DWINDLE_CPU` names.

#![no_main]

use std::cell::OnceCell;

use dwindle_runtime::device::cpu::trial::{Outcome, Trials};
use libfuzzer_sys::{Corpus, fuzz_target};

thread_local! {
    static TRIALS: OnceCell<Trials> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let open = || {
        let only = std::env::var("DWINDLE_CPU").ok();
        Trials::new(only.as_deref(), &[1]).expect("the instruction set is available")
    };
    match TRIALS.with(|trials| trials.get_or_init(open).run(bytes)) {
        Outcome::TooLong => Corpus::Reject,
        _ => Corpus::Keep,
    }
});
