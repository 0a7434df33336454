//! The `dwindle` command: shrink models, compile them into one file, run them. No algorithm lives here.

mod bench;
mod cache;
mod compile;
mod convert;
mod demo;
mod destination;
mod device;
mod exit;
mod fit;
mod hub;
mod inspect;
mod logits;
mod memory;
mod models;
mod output;
mod progress;
mod quantize;
mod restricted;
mod run;
mod said;
mod schemes;
mod serve;
mod source;
mod synth;
mod termination;
mod work;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Shrinks language and vision models, compiles them into one file, and runs them on small devices.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, after_help = AFTER_HELP)]
struct Options {
    #[command(subcommand)]
    command: Command,

    /// Say more on stderr; twice for details. RUST_LOG filters finer.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

const AFTER_HELP: &str = "\
Examples:
  dwindle run --image picture.png                       talk about a picture with the built-in demo models
  dwindle convert path/to/checkpoint -o model           the four steps, one by one
  dwindle quantize model --scheme q4f16_1 -o model-q4
  dwindle compile model-q4 --target vulkan -o model.dwindle
  dwindle run model.dwindle
  dwindle serve model.dwindle                           the same for a browser, a phone, or programs

Exit codes: 2 usage, 3 bad input, 4 does not fit, 5 device, 6 damaged file, 130 interrupted, 143 terminated.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a model directory from a Hugging Face checkpoint
    Convert(convert::Options),
    /// Quantize a model directory
    Quantize(quantize::Options),
    /// Compile model directories or checkpoints into one bundle
    Compile(compile::Options),
    /// Chat with a bundle, with model directories or checkpoints, or with the built-in demo
    Run(run::Options),
    /// Serve a model on this machine: a chat page, and OpenAI's API
    Serve(serve::Options),
    /// Measure tokens per second, load time and memory
    Bench(bench::Options),
    /// Write the logits of given tokens, to compare with other implementations
    Logits(logits::Options),
    /// Show what is in a checkpoint, a model directory or a bundle, at any stage of compilation
    Inspect(inspect::Options),
    /// List the quantization schemes
    Schemes(schemes::Options),
    /// Make a checkpoint of a real shape with random weights
    #[command(hide = true)]
    Synth(synth::Options),
}

fn main() -> ExitCode {
    quiet_device_selection();
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => return output::usage(&error),
    };
    start_logging(options.verbose);
    dwindle_bundle::exit_when_shortened(exit::DAMAGED);
    let result = match options.command {
        Command::Convert(options) => convert::run(options),
        Command::Quantize(options) => quantize::run(options),
        Command::Compile(options) => compile::run(options),
        Command::Run(options) => run::run(options),
        Command::Serve(options) => serve::run(options),
        Command::Bench(options) => bench::run(options),
        Command::Logits(options) => logits::run(options),
        Command::Inspect(options) => inspect::run(options),
        Command::Schemes(options) => schemes::run(options),
        Command::Synth(options) => synth::run(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

fn start_logging(verbose: u8) {
    let level =
        ["warn", "dwindle=info,dwindle_runtime=info,dwindle_compiler=info,warn", "debug"][usize::from(verbose.min(2))];
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| output::Log)
        .with_ansi(false)
        .without_time()
        .init();
}

/// Mesa's device selection looks for a Wayland session and complains on stderr where there is none, as over SSH. The runtime
/// chooses the device itself.
fn quiet_device_selection() {
    if std::env::var_os("NODEVICE_SELECT").is_none() {
        // SAFETY: nothing has started a thread yet, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
