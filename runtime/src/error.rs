//! What can go wrong while a bundle runs.

use std::fmt;

use dwindle_bundle::{Moment, Room};

use crate::device::Place;

/// A bundle could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bundle itself is at fault.
    #[error(transparent)]
    Bundle(#[from] dwindle_bundle::Error),
    /// A picture is.
    #[error(transparent)]
    Image(#[from] crate::image::Error),
    /// A template is, or refuses a conversation.
    #[error(transparent)]
    Template(#[from] crate::template::Error),
    /// A tokenizer is.
    #[error(transparent)]
    Tokenizer(#[from] crate::tokenizer::Error),
    /// A conversation asks for what its models cannot do.
    #[error(transparent)]
    Chat(#[from] crate::chat::Error),
    /// A conversation's file is.
    #[error(transparent)]
    Saved(#[from] crate::engine::SavedError),

    /// There is no device to run on.
    #[error(
        "no Vulkan or Metal adapter found: install a Vulkan driver, for example `apt install mesa-vulkan-drivers` \
         (it also holds a driver that runs on the processor); `vulkaninfo --summary` lists what is there"
    )]
    NoAdapter,
    /// No adapter has the name that was asked for.
    #[error("no adapter's name contains `{wanted}`; there are: {}", found.join(", "))]
    NoSuchAdapter {
        /// Part of a name, as asked for.
        wanted: String,
        /// Names of the adapters that exist.
        found: Vec<String>,
    },
    /// The device offers less than the plans were compiled for.
    #[error("adapter `{adapter}` cannot run this bundle: {}; compile it again on this machine", list(lacks))]
    Limits {
        /// The adapter's name.
        adapter: String,
        /// Everything that it lacks.
        lacks: Vec<Lack>,
    },
    /// The driver refused to open the device.
    #[error("adapter `{adapter}` cannot be opened: {why}")]
    Open {
        /// The adapter's name.
        adapter: String,
        /// What the driver says.
        why: String,
    },
    /// The processor lacks the instruction set that was asked for.
    #[error(transparent)]
    InstructionSet(#[from] dwindle_native::Unavailable),
    /// The device has no memory left.
    #[error("out of device memory for {what} ({bytes} bytes); a smaller context or fewer bits per weight need less")]
    OutOfMemory {
        /// The buffer or the work.
        what: String,
        /// Bytes that were asked for, 0 where unknown.
        bytes: u64,
    },
    /// The machine has too little memory for what is about to be loaded.
    #[error(
        "{} takes {} of memory besides this process, {} {} are left: {}; close other programs, raise the limit, or compile with \
         a smaller `--context`, with `--scheme` of fewer bits, or with `--fit {}MiB`",
        moment.what, mebibytes(*needed), mebibytes(room.bytes), room.limit, parts(moment, *place), room.bytes.saturating_add(moment.process) >> 20
    )]
    Memory {
        /// Bytes that have to be there.
        needed: u64,
        /// What there is.
        room: Room,
        /// The worst moment.
        moment: Box<Moment>,
        /// Where the buffers would be.
        place: Place,
    },
    /// The device stopped working: it was unplugged, reset, or its driver gave up.
    #[error("the device was lost during {what}: {why}; start again")]
    DeviceLost {
        /// The work.
        what: String,
        /// What the driver says.
        why: String,
    },
    /// The device's interface refused a buffer, a kernel or a command.
    #[error("the device refused {what}: {why}")]
    Refused {
        /// The buffer, kernel or work.
        what: String,
        /// What the interface says.
        why: String,
    },

    /// What an answer is restricted to cannot be met.
    #[error("the answer cannot be restricted as asked: {why}")]
    Mask {
        /// What is wrong.
        why: String,
    },

    /// A plan holds something that cannot be executed.
    #[error("the plan cannot be executed: {why}")]
    Plan {
        /// Where and what.
        why: String,
    },
    /// A plan lacks a function.
    #[error("the plan has no function `{function}`; it has: {}", found.join(", "))]
    NoFunction {
        /// The missing one.
        function: String,
        /// Those that are there.
        found: Vec<String>,
    },
    /// A function lacks an input or output.
    #[error("function `{function}` has no {direction} `{port}`; it has: {}", found.join(", "))]
    NoPort {
        /// The function.
        function: String,
        /// `input` or `output`.
        direction: &'static str,
        /// The missing one.
        port: String,
        /// Those that are there.
        found: Vec<String>,
    },
    /// Values of the wrong type for a port.
    #[error("port `{port}` of function `{function}` holds {holds}, not {given}")]
    PortType {
        /// The function.
        function: String,
        /// The port.
        port: String,
        /// Type of the port's elements.
        holds: &'static str,
        /// Type of the caller's elements.
        given: &'static str,
    },
    /// Values of the wrong number for a port.
    #[error("port `{port}` of function `{function}`: {why}")]
    PortSize {
        /// The function.
        function: String,
        /// The port.
        port: String,
        /// The numbers.
        why: String,
    },
    /// A call with rows, a position or a grid that is out of range.
    #[error("call of function `{function}`: {why}")]
    Call {
        /// The function.
        function: String,
        /// The numbers.
        why: String,
    },

    /// The conversation does not fit.
    #[error(
        "the context is full: {have} of {context} positions are taken, {need} more are needed; shorten the prompt or \
         compile with a longer `--context`"
    )]
    ContextFull {
        /// Positions in use.
        have: u32,
        /// Positions asked for.
        need: usize,
        /// Positions in all.
        context: u32,
    },
    /// There is nothing to compute.
    #[error("no token was given: a prompt needs at least one")]
    NoTokens,
    /// A token that the model does not know.
    #[error("token {token} is out of range: the vocabulary has {vocab_size} tokens")]
    Token {
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab_size: u32,
    },
    /// Positions to go back to that were never reached.
    #[error("cannot go back to {wanted} positions: only {have} are taken")]
    Truncate {
        /// Positions to keep.
        wanted: u32,
        /// Positions in use.
        have: u32,
    },
    /// An image row for a model without eyes, or out of the range of its image rows.
    #[error("image rows: {why}")]
    ImageRows {
        /// What does not fit.
        why: String,
    },

    /// A sampling option that is out of range.
    #[error("{option} is {value}: expected {expected}")]
    Sampling {
        /// The option's name.
        option: &'static str,
        /// What was given.
        value: f32,
        /// What it may be.
        expected: &'static str,
    },
    /// Logits that no token can be drawn from.
    #[error("the logits cannot be sampled: {why}; the weights are damaged, or the scheme is too coarse for the model")]
    Logits {
        /// The first that is wrong.
        why: String,
    },
}

/// A limit or feature of the device that plans need and the adapter lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lack {
    /// A limit, by WebGPU's name.
    Limit {
        /// The name.
        name: String,
        /// What the bundle needs.
        needs: u64,
        /// What the adapter offers.
        offers: u64,
    },
    /// A limit that this program does not know.
    UnknownLimit(String),
    /// A feature, by WebGPU's name.
    Feature(String),
    /// A feature that this program does not know.
    UnknownFeature(String),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Limit { name, needs, offers } => write!(f, "needs {name} {needs}, adapter offers {offers}"),
            Lack::UnknownLimit(name) => write!(f, "needs {name}, which this program does not know"),
            Lack::Feature(name) => write!(f, "needs feature {name}, adapter lacks it"),
            Lack::UnknownFeature(name) => write!(f, "needs feature {name}, which this program does not know"),
        }
    }
}

fn list(lacks: &[Lack]) -> String {
    lacks.iter().map(Lack::to_string).collect::<Vec<_>>().join("; ")
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// What of a moment has to be in the machine's memory, largest first, the process aside.
fn parts(moment: &Moment, place: Place) -> String {
    let there = |bytes: u64, there: bool| if there { bytes } else { 0 };
    let mut parts = [
        ("weights", there(moment.weights, place == Place::Host)),
        ("caches", there(moment.states, place != Place::Device)),
        ("work", there(moment.work, place != Place::Device)),
        ("tokenizers", moment.tokenizers),
        ("picture", moment.picture),
        ("staging", moment.staging),
    ];
    parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let parts = parts.iter().filter(|(_, bytes)| *bytes > 0);
    parts.map(|(name, bytes)| format!("{name} {}", mebibytes(*bytes))).collect::<Vec<_>>().join(", ")
}
