//! Throughput of one thread, in MB of bf16 weights a second, and what `search` gains over `rtn` on normal weights.
//!
//! `cargo bench -p dwindle-quant`. Each figure is the best of several passes over 64 rows of 16384 columns.

use std::time::Instant;

use dwindle_quant::{ErrorStats, Method, decode_rows, encode_rows, read_floats};
use dwindle_schemes::{FloatType, Format};

const ROWS: usize = 64;
const COLUMNS: usize = 16384;

fn main() {
    let bytes = weights();
    let mut values = vec![0.0; ROWS * COLUMNS];
    println!("{:24} {:>8}   {:>16}", "one thread", "MB/s", "squared error");
    report("read bf16", || read_floats(FloatType::Bf16, &bytes, &mut values).expect("lengths fit"));
    println!();
    for format in ["q3g40f16", "q4g32f16", "q4g32f32", "q4g32f16m", "q5g32f16", "q5g32f16m", "q6g32f16", "q8g32f16"] {
        let Ok(Format::Grouped(grouped)) = format.parse() else { panic!("{format} is grouped") };
        let mut words = vec![0; ROWS * grouped.words(COLUMNS)];
        let mut scales = vec![0.0; ROWS * grouped.scales(COLUMNS)];
        let mut decoded = vec![0.0; ROWS * COLUMNS];
        let mut of_rtn = 0.0;
        for method in Method::ALL {
            report(&format!("{format} {method}"), || {
                read_floats(FloatType::Bf16, &bytes, &mut values).expect("lengths fit");
                encode_rows(&values, COLUMNS, &grouped, method, &mut words, &mut scales).expect("weights are finite");
            });
            decode_rows(&words, &scales, COLUMNS, &grouped, &mut decoded).expect("lengths fit");
            let stats = ErrorStats::of(&values, &decoded);
            if method == Method::Rtn {
                of_rtn = stats.error;
            }
            println!("   {:.4} x rtn, {:.2} dB", stats.error / of_rtn, stats.snr_db());
        }
        report(&format!("{format} decode"), || {
            decode_rows(&words, &scales, COLUMNS, &grouped, &mut decoded).expect("lengths fit");
        });
        println!();
    }
    report("error statistics", || {
        std::hint::black_box(ErrorStats::of(&values, &values));
    });
    println!();
}

/// Normal bf16 values of deviation 0.02 (Box and Muller 1958, on the generator of Knuth's MMIX).
fn weights() -> Vec<u8> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 + 0.5) / (1 << 24) as f32
    };
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f32::consts::TAU * uniform()).cos() * 0.02;
    (0..ROWS * COLUMNS).flat_map(|_| half::bf16::from_f32(normal()).to_le_bytes()).collect()
}

fn report(what: &str, mut work: impl FnMut()) {
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .min()
        .expect("there are passes");
    print!("{what:24} {:8.0}", (ROWS * COLUMNS * 2) as f64 / 1e6 / best.as_secs_f64());
}
