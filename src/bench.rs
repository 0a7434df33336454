//! `dwindle bench`: tokens per second, seconds per picture, memory and bandwidth; verified first, then timed.

mod bandwidth;
mod measure;
mod subject;
mod text;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use dwindle_bundle::{BufferKind, Model};
use dwindle_compiler::target::TargetName;
use dwindle_runtime::device::cpu;
use dwindle_runtime::{Executor, Model as Loaded};
use serde_json::{Value, json};

use self::measure::Bench;
use self::subject::Subject;
use crate::device::Device;
use crate::memory;
use crate::output;
use crate::source::DEFAULT_SCHEME;

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A bundle [default: the built-in demo]
    bundle: Option<PathBuf>,

    /// Which model of the bundle [default: the one that chats]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Random weights of a real shape: gemma-2b, gemma-2-2b, qwen2-0.5b, qwen2-1.5b, llava-onevision-0.5b or a config.json
    #[arg(long, value_name = "PRESET|config.json", conflicts_with_all = ["bundle", "model"])]
    synthetic: Option<String>,

    /// How --synthetic's weights are stored (see `dwindle schemes`)
    #[arg(long, default_value = DEFAULT_SCHEME, requires = "synthetic")]
    scheme: String,

    /// Targets to compare: vulkan, metal or cpu; of a bundle, those that it is compiled for [default: the GPU, or cpu where there is none]
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    target: Vec<TargetName>,

    /// Positions of the KV caches, for --synthetic [default: what the model allows, 4096 at most]
    #[arg(long, value_name = "N", requires = "synthetic")]
    context: Option<u32>,

    /// Prompts of these lengths
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [128, 512])]
    prompt_tokens: Vec<u32>,

    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    gen_tokens: u32,

    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    reps: u32,

    /// Print JSON: an object, or an array of them where several targets are compared
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    device: Device,
}

/// Measures.
pub fn run(options: Options) -> Result<()> {
    let mut reports = Vec::new();
    for subject in subject::open(&options)? {
        reports.push(measure(&options, subject?)?);
        if !options.json {
            output::line(text::of(&reports[reports.len() - 1]))?;
        }
    }
    if options.json {
        let report = if reports.len() == 1 { reports.remove(0) } else { Value::Array(reports) };
        output::json(&format!("{report:#}"))?;
    }
    Ok(())
}

fn measure(options: &Options, subject: Subject) -> Result<Value> {
    let (bundle, opening) = (&subject.bundle, subject.opening);
    let model = subject::choose(bundle, options.model.as_deref())?;
    for &tokens in &options.prompt_tokens {
        let context = model.context;
        ensure!(tokens > 0 && tokens <= context, "a prompt of {tokens} tokens does not fit the context of {context}");
    }
    let needed = u64::from(options.gen_tokens) + u64::from(measure::SHORT_PROMPT);
    ensure!(
        needed <= u64::from(model.context),
        "{} tokens after a prompt of {} do not fit the context of {}",
        options.gen_tokens,
        measure::SHORT_PROMPT,
        model.context
    );

    let started = Instant::now();
    let device = dwindle_runtime::device::open(&options.device.choice(), &bundle.manifest().target)?;
    let moment = bundle.manifest().memory.alone(&bundle.manifest().models, &model.name);
    if let Some(moment) = &moment {
        dwindle_runtime::budget::check(moment, device.place())?;
    }
    let executor = Executor::new(&*device, &model.plan, bundle)?;
    let mut bench = Bench::new(&Loaded::new(executor, model)?)?;
    bench.workspace.wait()?;
    let loaded = opening + started.elapsed();
    let first_prompt = measure::first_token(&mut bench, model)?;
    measure::verify(&mut bench, model)?;
    let prefill = |&tokens: &u32| {
        let rates = measure::prefill(&mut bench, model, tokens, options.reps)?;
        Ok(json!({ "tokens": tokens, "tokens_per_second": rates }))
    };
    let prefill = options.prompt_tokens.iter().map(prefill).collect::<Result<Vec<_>>>()?;
    let decode = measure::decode(&mut bench, model, options.gen_tokens, options.reps)?;
    let image = model.image.as_ref().map(|input| measure::image(&mut bench, input, options.reps)).transpose()?;

    // Memory is read before the bandwidth's buffer adds to it.
    let (peak, anonymous) = (memory::peak_bytes(), memory::anonymous_bytes());
    let bytes = weight_bytes(model);
    let bandwidth = match bundle.manifest().target.name == TargetName::Cpu.name() {
        true => Some(bandwidth::measure(options.device.threads().unwrap_or_else(cpu::default_threads))?),
        // What a driver takes of its memory's bandwidth cannot be measured from here.
        false => None,
    };
    Ok(json!({
        "model": model.name,
        "about": model.about,
        "target": bundle.manifest().target.name,
        "device": device.name(),
        "prefill": prefill,
        "decode": {
            "tokens": options.gen_tokens,
            "tokens_per_second": decode.to_json(),
            "bytes_per_token": bytes,
            "dispatches_per_token": model.plan.functions.get("decode").map(|f| f.steps.len()),
        },
        "image": image,
        "bandwidth_bytes_per_second": bandwidth,
        "bandwidth_share": bandwidth.map(|bandwidth| decode.median * bytes as f64 / bandwidth),
        "load_seconds": loaded.as_secs_f64(),
        "first_token_seconds": (loaded + first_prompt).as_secs_f64(),
        "device_bytes": model.memory.total(),
        "planned_peak_bytes": moment.map(|moment| moment.total()),
        "peak_bytes": peak,
        "anonymous_bytes": anonymous,
    }))
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
