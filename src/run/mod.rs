//! `dwindle run`: chat with a bundle, with checkpoints compiled on the way, or with the built-in demo.

mod answer;
mod attached;
mod chat;
mod formats;
mod interrupt;
mod mentions;
pub mod pictures;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use dwindle_runtime::{Conversation, ConversationOptions, SamplingChoice};

use crate::models::Models;
use crate::output::note;
use crate::{restricted, termination};

/// Options of `run`.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Options {
    #[command(flatten)]
    models: Models,

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

    /// Answer with JSON that conforms to the schema in this file
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,

    /// Print one JSON object: answer, descriptions, tokens and seconds of each phase, memory
    #[arg(long, requires = "prompt")]
    json: bool,
}

/// Runs.
pub fn run(options: Options) -> Result<()> {
    let started = Instant::now();
    interrupt::install()?;
    termination::install()?;
    let bundle = options.models.open()?;
    let conversation_options = ConversationOptions {
        system: options.system.clone(),
        sampling: sampling(&options),
        max_tokens: options.max_tokens,
        device: options.models.device.choice(),
    };
    let mut conversation = Conversation::open(&bundle, conversation_options)?;
    if let Some(file) = &options.json_schema {
        restricted::restrict(&mut conversation, file)?;
    }
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
