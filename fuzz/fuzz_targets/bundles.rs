//! Bundles: whole files, and manifests in files whose structure and checksums are right. What opens is executed on the processor.

#![no_main]

use std::cell::RefCell;
use std::io::{Cursor, Write};

use dwindle_bundle::{Bundle, Call, MANIFEST_ENTRY};
use dwindle_runtime::device::cpu::{Cpu, Options};
use dwindle_runtime::{Executor, Lane};
use libfuzzer_sys::fuzz_target;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Plans that take more are not executed: fuzzing is about shapes.
const MAX_BYTES: u64 = 32 << 10;

/// Nor plans of more steps in a function.
const MAX_STEPS: usize = 8;

thread_local! {
    static CPU: RefCell<Option<Cpu>> = const { RefCell::new(None) };
}

fn cpu() -> Cpu {
    let open = || Cpu::open(&Options { threads: Some(1), instruction_set: None }).expect("a processor");
    CPU.with_borrow_mut(|cpu| cpu.get_or_insert_with(open).clone())
}

/// A file with this manifest and the weights that the corpus' manifests name: 8192 bytes of 0x11. They are not aligned, so that they are
/// copied to where a guard page follows them.
fn with_manifest(manifest: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::with_capacity(20 << 10)));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in [("weights.0", &[0x11; 8192][..]), (MANIFEST_ENTRY, manifest)] {
        zip.start_file(name, options).expect("memory takes everything");
        zip.write_all(bytes).expect("memory takes everything");
    }
    zip.finish().expect("memory takes everything").into_inner()
}

/// Opens a file that lies in memory, verifies it and executes what is small.
fn try_out(file: &'static [u8]) {
    let Ok(bundle) = Bundle::from_static(file) else { return };
    if bundle.verify().is_err() {
        return;
    }
    let names: Vec<String> = bundle.manifest().targets().map(|target| target.name.clone()).collect();
    for name in names {
        let bundle = bundle.select(&name).expect("one of its targets");
        for model in &bundle.manifest().models {
            let is_long = model.plan.functions.values().any(|function| function.steps.len() > MAX_STEPS);
            if is_long || model.memory.total() > MAX_BYTES {
                continue;
            }
            let Ok(executor) = Executor::new(&cpu(), &model.plan, &bundle) else { continue };
            let (Ok(mut states), Ok(mut workspace)) = (executor.states(), executor.workspace()) else { continue };
            let mut lane = Lane { states: &mut *states, workspace: &mut *workspace };
            for (name, function) in &model.plan.functions {
                for rows in [1, function.max_rows] {
                    let _ = executor.run(name, Call { rows, position: 0, tile: 0 }, &mut lane);
                }
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let built;
    let file = match bytes.starts_with(b"PK") {
        true => bytes,
        false => {
            built = with_manifest(bytes);
            &built
        }
    };
    // SAFETY: all that refers to the file is dropped when `try_out` returns, and the file is not.
    try_out(unsafe { std::slice::from_raw_parts(file.as_ptr(), file.len()) });
});
