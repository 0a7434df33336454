//! What running a bundle takes of memory: planned when it is compiled, stored in it, compared with the device before
//! anything is allocated.
//!
//! Sizes of buffers follow from the plans and are exact. Four figures are estimates, made once by the compiler and kept as
//! [`Estimates`]: the process itself, staging of uploads, tokenizers, and a large picture on its way through the image
//! processor. A [`Moment`] adds up what is there while one model works; the worst one is the bundle's peak.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::manifest::{Ensemble, Model};
use crate::native::NativeKernel;
use crate::plan::{BufferKind, Plan};

/// No real estimate comes near this; sums of two such sizes cannot overflow.
const MAX_ESTIMATE: u64 = 1 << 40;

/// Bytes a plan allocates, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Weights.
    pub weights: u64,
    /// KV caches and image rows.
    pub states: u64,
    /// Intermediate values.
    pub scratch: u64,
    /// Inputs and outputs.
    pub ports: u64,
    /// Prepared activations of the matrix product that needs most of them: native kernels only.
    pub activations: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        [self.weights, self.states, self.work()].into_iter().fold(0, u64::saturating_add)
    }

    /// What calls work in: nothing of it lasts from one call to the next.
    pub fn work(&self) -> u64 {
        [self.scratch, self.ports, self.activations].into_iter().fold(0, u64::saturating_add)
    }
}

impl Plan {
    /// What executing this plan allocates on the device.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for buffer in &self.buffers {
            let sum = match buffer.kind {
                BufferKind::Weights(_) => &mut memory.weights,
                BufferKind::State => &mut memory.states,
                BufferKind::Scratch => &mut memory.scratch,
                BufferKind::Input | BufferKind::Output => &mut memory.ports,
            };
            *sum = sum.saturating_add(buffer.bytes);
        }
        let natives: Vec<Option<NativeKernel>> = self.kernels.iter().map(|kernel| kernel.code.native()).collect();
        for function in self.functions.values() {
            let used = function.steps.iter().filter_map(|step| natives.get(step.kernel as usize)?.as_ref());
            let most = used.map(|kernel| kernel.scratch_bytes(function.max_rows)).max().unwrap_or(0);
            memory.activations = memory.activations.max(most);
        }
        memory
    }
}

/// What of an ensemble's models is in memory at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Residency {
    /// Both models, always.
    #[default]
    Both,
    /// The model that works, and the chat model's caches. A description costs the time to bring in the describing model's
    /// weights, and the chat model's afterwards; answers are the same.
    Swap,
}

impl Residency {
    /// The name in the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Residency::Both => "both",
            Residency::Swap => "swap",
        }
    }
}

impl fmt::Display for Residency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no residency.
#[derive(Debug, thiserror::Error)]
#[error("unknown residency `{0}`: expected both or swap")]
pub struct UnknownResidency(String);

impl std::str::FromStr for Residency {
    type Err = UnknownResidency;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Residency::Both, Residency::Swap];
        all.into_iter().find(|known| known.name() == text).ok_or_else(|| UnknownResidency(text.to_owned()))
    }
}

/// What is no buffer of a plan, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimates {
    /// The program, its libraries and the device's driver, before any model is loaded.
    pub process: u64,
    /// Weights on their way to a device with memory of its own.
    pub staging: u64,
    /// For each model of the bundle, in order.
    pub models: Vec<ModelEstimates>,
}

/// What a model takes besides its buffers, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelEstimates {
    /// Its tokenizer and template.
    pub tokenizer: u64,
    /// A large picture, decoded and cut into tiles; 0 for a model without eyes.
    pub picture: u64,
}

/// What is in memory while one model works, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// `pocket-llava describes a picture`.
    pub what: String,
    /// Weights of all models that are there.
    pub weights: u64,
    /// Caches and image rows.
    pub states: u64,
    /// What calls work in.
    pub work: u64,
    /// Tokenizers of all models.
    pub tokenizers: u64,
    /// The picture.
    pub picture: u64,
    /// Weights on their way.
    pub staging: u64,
    /// The process itself.
    pub process: u64,
}

impl Moment {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.beside_weights())
    }

    /// All but the weights. Where weights are used in the mapping of the bundle's file, this is what cannot be dropped: the
    /// kernel takes back pages of files when it must, and reads them again.
    pub fn beside_weights(&self) -> u64 {
        let parts = [self.states, self.work, self.tokenizers, self.picture, self.staging, self.process];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    fn add(mut self, memory: &Memory, with_weights_and_work: bool) -> Self {
        self.states = self.states.saturating_add(memory.states);
        if with_weights_and_work {
            self.weights = self.weights.saturating_add(memory.weights);
            self.work = self.work.saturating_add(memory.work());
        }
        self
    }
}

/// What running a bundle takes of memory, moment by moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryPlan {
    /// What is no buffer.
    pub estimates: Estimates,
    /// While each model works, in the order of an image turn.
    pub moments: Vec<Moment>,
    /// Bytes of the worst moment.
    pub peak: u64,
}

impl MemoryPlan {
    /// Adds up the buffers of `models`, by name, and `estimates`, which has an entry for each.
    pub fn new(models: &[(&str, Memory)], ensemble: Option<&Ensemble>, estimates: Estimates) -> MemoryPlan {
        let tokenizers = estimates.models.iter().map(|model| model.tokenizer).sum();
        let base = |what: String, picture: u64| Moment {
            what,
            tokenizers,
            picture,
            staging: estimates.staging,
            process: estimates.process,
            ..Moment::default()
        };
        let picture = estimates.models.iter().map(|model| model.picture).max().unwrap_or(0);
        let moments: Vec<Moment> = match ensemble {
            None => {
                let alone =
                    |(name, memory): &(&str, Memory)| base(format!("{name} answers"), picture).add(memory, true);
                models.iter().map(alone).collect()
            }
            Some(ensemble) => {
                let moment = |what: String, working: &str| {
                    models.iter().fold(base(what, picture), |moment, (name, memory)| match ensemble.residency {
                        Residency::Both => moment.add(memory, true),
                        Residency::Swap if *name == working => moment.add(memory, true),
                        Residency::Swap if *name == ensemble.chat => moment.add(memory, false),
                        Residency::Swap => moment,
                    })
                };
                vec![
                    moment(format!("{} describes a picture", ensemble.describe), &ensemble.describe),
                    moment(format!("{} answers", ensemble.chat), &ensemble.chat),
                ]
            }
        };
        let peak = moments.iter().map(Moment::total).max().unwrap_or(0);
        MemoryPlan { estimates, moments, peak }
    }

    /// The first moment that takes as much as any.
    pub fn worst(&self) -> Option<&Moment> {
        self.moments.iter().find(|moment| moment.total() == self.peak)
    }

    /// While one model of the bundle works alone, as for measuring it.
    pub fn alone(&self, models: &[Model], name: &str) -> Option<Moment> {
        let index = models.iter().position(|model| model.name == name)?;
        let estimates =
            Estimates { models: self.estimates.models.get(index..=index)?.to_vec(), ..self.estimates.clone() };
        MemoryPlan::new(&[(name, models.get(index)?.memory)], None, estimates).moments.pop()
    }

    /// Says what does not agree with the models' plans, if anything does not.
    pub(crate) fn validate(&self, models: &[Model], ensemble: Option<&Ensemble>) -> Result<(), String> {
        for model in models {
            let planned = model.plan.memory();
            if model.memory != planned {
                return Err(format!("model `{}` claims {:?}, its plan has {planned:?}", model.name, model.memory));
            }
        }
        if self.estimates.models.len() != models.len() {
            return Err(format!("{} models have {} estimates", models.len(), self.estimates.models.len()));
        }
        let estimates = self.estimates.models.iter().flat_map(|model| [model.tokenizer, model.picture]);
        let too_large = |&bytes: &u64| bytes > MAX_ESTIMATE;
        if let Some(bytes) = estimates.chain([self.estimates.process, self.estimates.staging]).find(too_large) {
            return Err(format!("an estimate is {bytes} bytes"));
        }
        let named: Vec<(&str, Memory)> = models.iter().map(|model| (model.name.as_str(), model.memory)).collect();
        let sums = MemoryPlan::new(&named, ensemble, self.estimates.clone());
        if sums.peak != self.peak {
            return Err(format!("it says {} bytes, its parts add up to {}", self.peak, sums.peak));
        }
        match sums.moments == self.moments {
            true => Ok(()),
            false => Err("its moments are not the sums of their parts".to_owned()),
        }
    }
}
