//! `dwindle bench`: tokens per second of prefill and decode, load time and memory; verified first, then timed.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use dwindle_bundle::{BufferKind, Bundle, Model};
use dwindle_compiler::synth;
use dwindle_runtime::{Executor, Row, Session};
use serde_json::{Value, json};

use crate::compile::{Target, compile_sources};
use crate::demo;
use crate::device::{Device, Kind};
use crate::memory;
use crate::progress::Bars;
use crate::source::{Named, Preparation, Source};

/// How far the logits of a prompt read at once and read token by token may be apart, as a share of their range: caches of 16
/// bits and other orders of sums, over real models' depth.
const TOLERANCE: f32 = 0.02;

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A bundle [default: the built-in demo]
    bundle: Option<PathBuf>,

    /// Which model of the bundle [default: the one that chats]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Random weights of a real shape: gemma-2b, gemma-2-2b, qwen2-0.5b, qwen2-1.5b, llava-onevision-0.5b or a config.json
    #[arg(long, value_name = "PRESET|config.json", conflicts_with = "bundle")]
    synthetic: Option<String>,

    /// Prompts of these lengths
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [128, 512])]
    prompt_tokens: Vec<u32>,

    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 64)]
    gen_tokens: u32,

    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 3)]
    reps: u32,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    device: Device,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    preparation: Preparation,
}

/// Measures.
pub fn run(options: Options) -> Result<()> {
    ensure!(options.reps > 0 && options.gen_tokens > 0, "--reps and --gen-tokens are at least 1");
    let bundle = open(&options)?;
    let model = choose(&bundle, options.model.as_deref())?;
    let started = Instant::now();
    let device = dwindle_runtime::device::open(&options.device.choice(), &bundle.manifest().target)?;
    let moment = bundle.manifest().memory.alone(&bundle.manifest().models, &model.name);
    if let Some(moment) = &moment {
        dwindle_runtime::budget::check(moment, device.place())?;
    }
    let mut session = Session::new(Executor::new(&*device, &model.plan, &bundle)?, model)?;
    session.executor().wait()?;
    let load_seconds = started.elapsed().as_secs_f64();

    let first = Instant::now();
    verify(&mut session, model)?;
    let first_call_seconds = first.elapsed().as_secs_f64();
    let prefill = options
        .prompt_tokens
        .iter()
        .map(|&tokens| {
            Ok(json!({ "tokens": tokens, "tokens_per_second": prefill(&mut session, model, tokens, options.reps)? }))
        })
        .collect::<Result<Vec<_>>>()?;
    let decode = decode(&mut session, model, options.gen_tokens, options.reps)?;
    let report = json!({
        "model": model.name,
        "about": model.about,
        "device": device.name(),
        "prefill": prefill,
        "decode": {
            "tokens": options.gen_tokens,
            "tokens_per_second": decode,
            "bytes_per_token": weight_bytes(model),
            "dispatches_per_token": model.plan.functions.get("decode").map(|f| f.steps.len()),
        },
        "load_seconds": load_seconds,
        "first_call_seconds": first_call_seconds,
        "device_bytes": model.memory.total(),
        "planned_peak_bytes": moment.map(|moment| moment.total()),
        "peak_bytes": memory::peak_bytes(),
        "anonymous_bytes": memory::anonymous_bytes(),
    });
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print(&report),
    }
    Ok(())
}

fn open(options: &Options) -> Result<Bundle> {
    let bars = Bars::default();
    let target = options.target.only()?;
    match (&options.bundle, &options.synthetic) {
        (Some(path), _) => {
            let bundle = Bundle::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            match target {
                Some(target) => Ok(bundle.select(target.name())?),
                None => options.device.select(&bundle, Kind::Auto),
            }
        }
        (None, None) => demo::open(&options.target, &bars),
        (None, Some(shape)) => {
            let work = tempfile::tempdir().context("there is no directory for temporary files")?;
            let name =
                Path::new(shape).file_stem().map_or_else(|| shape.clone(), |stem| stem.to_string_lossy().into_owned());
            let name = if synth::preset(shape).is_some() { shape.clone() } else { name };
            let path = work.path().join(&name);
            synth::synthesize(&crate::synth::config(shape)?, 0, &path, &bars)?;
            let source = Source::Checkpoint(Named { path, name });
            let out = work.path().join("out.dwindle");
            compile_sources(&[source], &options.preparation, &options.target, &out, &bars)?;
            // The mapping outlives the file's name.
            Ok(Bundle::open(&out)?)
        }
    }
}

fn choose<'a>(bundle: &'a Bundle, name: Option<&str>) -> Result<&'a Model> {
    let manifest = bundle.manifest();
    let chats = manifest.ensemble.as_ref().map(|e| e.chat.as_str());
    match name.or(chats) {
        Some(name) => {
            manifest.models.iter().find(|m| m.name == name).with_context(|| format!("the bundle has no model {name}"))
        }
        None => manifest.models.first().context("the bundle has no model"),
    }
}

/// Tokens that differ from their neighbours and lie in the vocabulary.
fn prompt(model: &Model, tokens: u32) -> Vec<Row> {
    (0..tokens).map(|i| Row::from((i.wrapping_mul(7919) + 11) % model.vocab_size)).collect()
}

/// The logits are numbers, and a prompt read at once gives what it gives token by token.
fn verify(session: &mut Session, model: &Model) -> Result<()> {
    let rows = prompt(model, 8.min(model.context));
    session.reset();
    let whole = session.prefill(&rows)?.to_vec();
    ensure!(whole.iter().all(|v| v.is_finite()), "the logits are not finite: nothing is worth timing");
    session.reset();
    session.prefill(&rows[..rows.len() - 1])?;
    let single = session.decode(rows[rows.len() - 1].token)?;
    let (least, most) = whole.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    let apart = whole.iter().zip(single).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    ensure!(
        apart <= TOLERANCE * (most - least),
        "prefill and decode disagree by {apart}, over a range of {}: nothing is worth timing",
        most - least
    );
    Ok(())
}

fn prefill(session: &mut Session, model: &Model, tokens: u32, reps: u32) -> Result<Value> {
    if tokens == 0 || tokens > model.context {
        bail!("a prompt of {tokens} tokens does not fit the context of {}", model.context);
    }
    let rows = prompt(model, tokens);
    rates(reps, tokens, || {
        session.reset();
        session.prefill(&rows)?;
        Ok(())
    })
}

fn decode(session: &mut Session, model: &Model, tokens: u32, reps: u32) -> Result<Value> {
    let rows = prompt(model, 8.min(model.context));
    if tokens + 8 > model.context {
        bail!("{tokens} tokens after a prompt of 8 do not fit the context of {}", model.context);
    }
    let mut seconds = Vec::new();
    // The first round warms up and is not counted; the prompt is outside the clock.
    for _ in 0..=reps {
        session.reset();
        session.prefill(&rows)?;
        let started = Instant::now();
        for token in 0..tokens {
            session.decode((token.wrapping_mul(31) + 5) % model.vocab_size)?;
        }
        seconds.push(started.elapsed().as_secs_f64());
    }
    Ok(statistics(seconds.split_off(1), tokens))
}

/// Runs once to warm up, then `reps` times against the clock.
fn rates(reps: u32, tokens: u32, mut work: impl FnMut() -> Result<()>) -> Result<Value> {
    work()?;
    let mut seconds = Vec::new();
    for _ in 0..reps {
        let started = Instant::now();
        work()?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    Ok(statistics(seconds, tokens))
}

fn statistics(seconds: Vec<f64>, tokens: u32) -> Value {
    let mut rates: Vec<f64> = seconds.into_iter().map(|s| f64::from(tokens) / s.max(1e-9)).collect();
    rates.sort_by(f64::total_cmp);
    json!({ "min": rates[0], "median": rates[rates.len() / 2], "max": rates[rates.len() - 1] })
}

/// Bytes of weights that one token reads: every buffer that a step of `decode` binds, once; of an embedding only a row is read, but a tied head reads it all.
fn weight_bytes(model: &Model) -> u64 {
    let Some(function) = model.plan.functions.get("decode") else { return 0 };
    let mut ranges: Vec<_> =
        function.steps.iter().flat_map(|step| &step.bindings).map(|b| (b.buffer, b.offset, b.bytes)).collect();
    ranges.sort_unstable();
    ranges.dedup();
    let weights = |buffer: u32| matches!(model.plan.buffers[buffer as usize].kind, BufferKind::Weights(_));
    ranges.into_iter().filter(|(buffer, ..)| weights(*buffer)).map(|(_, _, bytes)| bytes).sum()
}

fn print(report: &Value) {
    let rate = |value: &Value| {
        let number = |key: &str| value[key].as_f64().unwrap_or(0.0);
        format!("{:8.1} tokens/s   ({:.1} – {:.1})", number("median"), number("min"), number("max"))
    };
    println!("{} on {}", report["model"].as_str().unwrap_or(""), report["device"].as_str().unwrap_or(""));
    for prefill in report["prefill"].as_array().into_iter().flatten() {
        println!("  prefill {:>5} {}", prefill["tokens"].to_string(), rate(&prefill["tokens_per_second"]));
    }
    let decode = &report["decode"];
    println!("  decode  {:>5} {}", decode["tokens"].to_string(), rate(&decode["tokens_per_second"]));
    let mib = |value: &Value| {
        value.as_u64().map_or("unknown".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / 1048576.0))
    };
    println!("  {} of weights a token, {} dispatches", mib(&decode["bytes_per_token"]), decode["dispatches_per_token"]);
    println!(
        "  load {:.2} s, first call {:.2} s",
        report["load_seconds"].as_f64().unwrap_or(0.0),
        report["first_call_seconds"].as_f64().unwrap_or(0.0)
    );
    println!(
        "  device memory {}, process peak {}, anonymous {}",
        mib(&report["device_bytes"]),
        mib(&report["peak_bytes"]),
        mib(&report["anonymous_bytes"])
    );
}
