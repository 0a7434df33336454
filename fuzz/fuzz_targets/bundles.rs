//! Bundles: whole files, and manifests in files whose structure and checksums are right. What opens is executed on the processor.

#![no_main]

use std::cell::RefCell;
use std::io::{Cursor, Write};
use std::path::PathBuf;

use dwindle_bundle::{Bundle, Call, MANIFEST_ENTRY};
use dwindle_runtime::device::cpu::{Cpu, Options};
use dwindle_runtime::{Executor, Lane};
use libfuzzer_sys::fuzz_target;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Plans that take more are not executed: fuzzing is about shapes.
const MAX_BYTES: u64 = 64 << 20;

thread_local! {
    static CPU: RefCell<Option<Cpu>> = const { RefCell::new(None) };
}

fn cpu() -> Cpu {
    let open = || Cpu::open(&Options { threads: Some(1), instruction_set: None }).expect("a processor");
    CPU.with_borrow_mut(|cpu| cpu.get_or_insert_with(open).clone())
}

/// A file with this manifest and the weights that the corpus' manifests name: 8192 bytes of 0x11.
fn with_manifest(manifest: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).with_alignment(4096);
    for (name, bytes) in [("weights.0", &[0x11; 8192][..]), (MANIFEST_ENTRY, manifest)] {
        zip.start_file(name, options).expect("memory takes everything");
        zip.write_all(bytes).expect("memory takes everything");
    }
    zip.finish().expect("memory takes everything").into_inner()
}

fuzz_target!(|bytes: &[u8]| {
    let path = PathBuf::from(format!("/dev/shm/dwindle-fuzz-{}.dwindle", std::process::id()));
    let file = if bytes.starts_with(b"PK") { bytes.to_vec() } else { with_manifest(bytes) };
    std::fs::write(&path, file).expect("there is room in memory");
    let Ok(bundle) = Bundle::open(&path) else { return };
    let _ = bundle.verify();
    let names: Vec<String> = bundle.manifest().targets().map(|target| target.name.clone()).collect();
    for name in names {
        let bundle = bundle.select(&name).expect("one of its targets");
        for model in &bundle.manifest().models {
            if model.memory.total() > MAX_BYTES {
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
});
