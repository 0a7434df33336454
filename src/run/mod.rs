//! `dwindle run`: chat with a bundle, with checkpoints compiled on the way, or with the built-in demo.

mod answer;
mod attached;
mod chat;
mod formats;
mod interrupt;
mod mentions;
pub mod pictures;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dwindle_bundle::Bundle;
use dwindle_runtime::{Conversation, ConversationOptions, SamplingChoice};

use crate::compile::{Target, compile_sources};
use crate::device::{Device, Kind};
use crate::output::note;
use crate::progress::Bars;
use crate::source::{Preparation, Source, open_bundle};
use crate::{cache, demo, schemes, termination};

/// Options of `run`.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Options {
    /// A bundle; or model directories, checkpoints or hub ids: one model, or one that sees and one that chats.
    /// Without any, the built-in demo models
    models: Vec<String>,

    /// A picture to talk about; repeat for several
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,

    /// Answer this once and exit; only the answer goes to stdout
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,

    /// Instructions that stand before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    /// The most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_tokens: u32,

    /// 0 takes the likeliest token each time; higher is more varied [default: the model's]
    #[arg(long, value_name = "F")]
    temperature: Option<f32>,

    /// Sample from the likeliest tokens of this total probability [default: the model's]
    #[arg(long, value_name = "F")]
    top_p: Option<f32>,

    /// Sample from this many likeliest tokens [default: the model's]
    #[arg(long, value_name = "N")]
    top_k: Option<u32>,

    /// Leave out tokens less likely than this share of the likeliest one
    #[arg(long, value_name = "F")]
    min_p: Option<f32>,

    /// Make tokens that occurred less likely; 1 is off
    #[arg(long, value_name = "F")]
    repetition_penalty: Option<f32>,

    /// Seed of the random numbers; the same seed gives the same answer
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Continue the prompt as it is, without the model's chat template
    #[arg(long, requires = "prompt", conflicts_with = "system")]
    raw: bool,

    /// Print one JSON object: answer, descriptions, tokens and seconds of each phase, memory
    #[arg(long, requires = "prompt")]
    json: bool,

    /// Positions of the KV cache, for sources that are compiled here
    #[arg(long, value_name = "N")]
    context: Option<u32>,

    /// Where to run: a bundle for several targets on the one of this kind, models that are compiled here on whatever suits
    #[arg(long = "device", value_enum, value_name = "KIND", default_value_t)]
    kind: Kind,

    #[command(flatten)]
    device: Device,

    #[command(flatten)]
    preparation: Preparation,
}

/// Runs.
pub fn run(options: Options) -> Result<()> {
    let started = Instant::now();
    interrupt::install()?;
    termination::install()?;
    let bundle = open(&options)?;
    let conversation_options = ConversationOptions {
        system: options.system.clone(),
        sampling: sampling(&options),
        max_tokens: options.max_tokens,
        device: options.device.choice(),
    };
    let mut conversation = Conversation::open(&bundle, conversation_options)?;
    let load_seconds = started.elapsed().as_secs_f64();
    conversation.info().notes.iter().for_each(|note| note!("note: {note}"));
    match &options.prompt {
        Some(prompt) => answer::once(&mut conversation, &options, prompt, load_seconds),
        None => chat::interactive(&mut conversation, &options),
    }
}

fn sampling(options: &Options) -> SamplingChoice {
    SamplingChoice {
        temperature: options.temperature,
        top_p: options.top_p,
        top_k: options.top_k,
        min_p: options.min_p,
        repetition_penalty: options.repetition_penalty,
        seed: options.seed,
    }
}

/// The bundle that the user named, or one compiled from what the user named.
fn open(options: &Options) -> Result<Bundle> {
    let bars = Bars::default();
    let revision = options.preparation.revision.as_deref();
    let resolve = |text: &String| Source::resolve(text, revision, &bars);
    let sources = options.models.iter().map(resolve).collect::<Result<Vec<_>>>()?;
    match sources.as_slice() {
        [] => demo::open(&Target::for_device(options.kind, &options.device), &bars),
        [Source::Bundle(path)] => options.device.select(&open_bundle(path)?, options.kind),
        _ if sources.iter().any(|s| matches!(s, Source::Bundle(_))) => {
            bail!("a bundle stands alone: name one bundle, or several checkpoints or model directories")
        }
        _ => open_compiled(&sources, options, &bars),
    }
}

fn open_compiled(sources: &[Source], options: &Options, bars: &Bars) -> Result<Bundle> {
    let directory = cache::directory()?;
    let target = Target { context: options.context, ..Target::for_device(options.kind, &options.device) };
    let mut key = cache::Key::new("run");
    key.add(target.name().name().as_bytes());
    key.add(format!("{:?}", schemes::named(options.preparation.scheme())?).as_bytes());
    key.add(options.preparation.method.to_string().as_bytes());
    key.add(&options.context.unwrap_or(0).to_le_bytes());
    options.preparation.ignore_key.iter().for_each(|ignored| key.add(ignored.as_bytes()));
    for source in sources {
        key.add(source.name().as_bytes());
        for file in source.content_files()? {
            key.add_file(&file)?;
        }
    }
    let path = key.path(&directory);
    if !path.is_file() {
        note!("compiling for this device; the result is kept in {}", directory.display());
    }
    while !path.is_file() {
        match compile_sources(sources, &options.preparation, &target, &path, bars) {
            // Somebody else compiles the same; what comes of it is as good.
            Err(error) if is_busy(&error) => std::thread::sleep(Duration::from_millis(200)),
            compiled => compiled?.warnings.iter().for_each(|warning| note!("warning: {warning}")),
        }
    }
    Bundle::open(&path)
        .with_context(|| format!("the cached bundle {} cannot be used; remove it and try again", path.display()))
}

fn is_busy(error: &anyhow::Error) -> bool {
    use dwindle_compiler::Error;
    matches!(error.downcast_ref::<Error>(), Some(Error::OutputBusy { .. }))
}
