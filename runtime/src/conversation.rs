//! A conversation with a bundle: with its one model, or with one that sees for one that talks.
//!
//! In an ensemble each picture is described by the describing model, alone and greedily; the descriptions and the
//! user's message become the chat model's turn through the bundle's handover template. A single model that sees
//! gets the pictures themselves.

use std::sync::atomic::{AtomicBool, Ordering};

use dwindle_bundle::{Bundle, Ensemble, Model, Residency};

use crate::chat::{self, Answer, Chat, Decoder, Finish, Generation, Parts, Phase, Question};
use crate::clock::{self, Stopwatch};
use crate::device;
use crate::image::Picture;
use crate::template::{Handover, Template};
use crate::tokenizer::Tokenizer;
use crate::{Error, Executor, Sampler, Sampling, Session, budget};

/// The most tokens of a picture's description.
const DESCRIPTION_TOKENS: usize = 512;

/// How a conversation is held.
#[derive(Clone, Debug, Default)]
pub struct ConversationOptions {
    /// Instructions that stand before the conversation.
    pub system: Option<String>,
    /// How the chat model's tokens are drawn.
    pub sampling: SamplingChoice,
    /// The most tokens of an answer.
    pub max_tokens: u32,
    /// Where the models run.
    pub device: device::Options,
}

/// What the user chose for sampling; `None` leaves it to the checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplingChoice {
    /// See [`Sampling::temperature`].
    pub temperature: Option<f32>,
    /// See [`Sampling::top_p`].
    pub top_p: Option<f32>,
    /// See [`Sampling::top_k`].
    pub top_k: Option<u32>,
    /// See [`Sampling::min_p`].
    pub min_p: Option<f32>,
    /// See [`Sampling::repetition_penalty`].
    pub repetition_penalty: Option<f32>,
    /// See [`Sampling::seed`].
    pub seed: u64,
}

impl SamplingChoice {
    /// The choices, over what the checkpoint suggests.
    pub fn over(&self, suggested: Sampling) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(suggested.temperature),
            top_p: self.top_p.unwrap_or(suggested.top_p),
            top_k: self.top_k.unwrap_or(suggested.top_k),
            min_p: self.min_p.unwrap_or(suggested.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(suggested.repetition_penalty),
            seed: self.seed,
            ..suggested
        }
    }
}

/// One answer, and what it cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// The answer, as it was streamed.
    pub answer: String,
    /// What the describing model said, one text a picture; empty where the chat model sees for itself.
    pub descriptions: Vec<String>,
    /// Why the answer ended.
    pub finish: Finish,
    /// Encoding of pictures, by whichever model; the tokens are image rows.
    pub encode: Phase,
    /// The describing model's work without the encoding; the tokens are those of the descriptions.
    pub describe: Phase,
    /// The chat model's reading of the prompt.
    pub prefill: Phase,
    /// The chat model's writing of the answer.
    pub decode: Phase,
    /// Positions of the chat model's cache that had to be computed again; see [`Answer::recomputed`].
    pub recomputed: usize,
    /// Pictures of earlier turns that had to be read again; see [`Answer::reshown`].
    pub reshown: usize,
    /// The oldest turns, forgotten because the chat model's context is full.
    pub forgotten: usize,
}

/// The model that sees for another.
#[derive(Debug)]
struct Describer<D> {
    chat: Chat<D>,
    prompt: String,
    handover: Handover,
    /// Only one of the two models has its weights in memory.
    swaps: bool,
}

/// A conversation with a bundle's models, which are loaded once.
#[derive(Debug)]
pub struct Conversation<D = Session> {
    chat: Chat<D>,
    describer: Option<Describer<D>>,
    sampler: Sampler,
    max_tokens: usize,
    model_names: Vec<String>,
    device_name: String,
    device_bytes: u64,
    peak_bytes: u64,
}

impl Conversation {
    /// Loads the models of a bundle onto a device.
    ///
    /// # Errors
    /// Those of the device and of the bundle's parts; [`chat::Error`] where a tokenizer or the ensemble is missing.
    pub fn open(bundle: &Bundle, options: ConversationOptions) -> Result<Conversation, Error> {
        let manifest = bundle.manifest();
        let device = device::open(&options.device, &manifest.target)?;
        if let Some(worst) = manifest.memory.worst() {
            budget::check(worst, device.place())?;
        }
        let load = |model: &Model, now: bool| {
            let mut executor = Executor::unloaded(&*device, &model.plan, bundle)?;
            if now {
                executor.load(bundle)?;
            }
            Ok(Session::new(executor, model)?.reloadable(bundle))
        };
        let text = |name: &str| Ok(bundle.text(name)?);
        let conversation =
            Conversation::assemble(&manifest.models, manifest.ensemble.as_ref(), options, &device.name(), load, text)?;
        Ok(Conversation { peak_bytes: manifest.memory.peak, ..conversation })
    }
}

impl<D: Decoder> Conversation<D> {
    /// Puts a conversation together from models; `load` makes each one's decoder, loaded or not, `text` reads an entry.
    fn assemble<'a>(
        models: &[Model],
        ensemble: Option<&Ensemble>,
        options: ConversationOptions,
        device_name: &str,
        load: impl Fn(&Model, bool) -> Result<D, Error>,
        text: impl Fn(&str) -> Result<&'a str, Error>,
    ) -> Result<Conversation<D>, Error> {
        let names = || models.iter().map(|model| model.name.clone()).collect::<Vec<_>>();
        let find = |name: &str| {
            let found = models.iter().find(|model| model.name == name);
            found.ok_or_else(|| chat::Error::NoModel { wanted: name.to_owned(), found: names() })
        };
        let (talking, ensemble) = match (models, ensemble) {
            (_, Some(ensemble)) => (find(&ensemble.chat)?, Some(ensemble)),
            ([model], None) => (model, None),
            _ => return Err(chat::Error::Models { models: names() }.into()),
        };
        let talking_parts = parts(talking, options.system, &text)?;
        // Tokenizers are read before weights are there: reading one takes more than it needs afterwards.
        let describer = match ensemble {
            None => None,
            Some(ensemble) => {
                let handover = Handover::parse(&ensemble.handover)?;
                let seeing = find(&ensemble.describe)?;
                let parts = parts(seeing, None, &text)?;
                let swaps = ensemble.residency == Residency::Swap;
                let chat = Chat::new(load(seeing, !swaps)?, parts);
                Some(Describer { chat, prompt: ensemble.describe_prompt.clone(), handover, swaps })
            }
        };
        Ok(Conversation {
            chat: Chat::new(load(talking, true)?, talking_parts),
            describer,
            sampler: Sampler::new(options.sampling.over(Sampling::from(&talking.sampling)))?,
            max_tokens: options.max_tokens as usize,
            model_names: names(),
            device_name: device_name.to_owned(),
            device_bytes: models.iter().map(|model| model.memory.total()).sum(),
            peak_bytes: 0,
        })
    }

    /// Says something, with pictures, and gives the answer to `on_text` as it comes. `cancel`, set from elsewhere,
    /// ends it; the part that came stays in the conversation.
    ///
    /// # Errors
    /// Those of [`Chat::ask`], for either model. The conversation then is as before.
    pub fn ask(
        &mut self,
        message: &str,
        pictures: &[Picture],
        on_text: &mut dyn FnMut(&str),
        cancel: &AtomicBool,
    ) -> Result<Turn, Error> {
        self.turn(message, pictures, on_text, cancel, Chat::ask)
    }

    /// Lets the chat model continue a text, without its template and without the conversation, which is forgotten.
    /// With pictures, an ensemble hands over their descriptions as for [`Conversation::ask`]; a single model that
    /// sees takes them at the placeholders in the text.
    ///
    /// # Errors
    /// Those of [`Chat::complete`].
    pub fn complete(
        &mut self,
        text: &str,
        pictures: &[Picture],
        on_text: &mut dyn FnMut(&str),
        cancel: &AtomicBool,
    ) -> Result<Turn, Error> {
        self.turn(text, pictures, on_text, cancel, Chat::complete)
    }

    fn turn(
        &mut self,
        message: &str,
        pictures: &[Picture],
        on_text: &mut dyn FnMut(&str),
        cancel: &AtomicBool,
        generate: impl FnOnce(&mut Chat<D>, Question<'_>, Generation<'_>) -> Result<Answer, Error>,
    ) -> Result<Turn, Error> {
        let mut turn = Turn {
            answer: String::new(),
            descriptions: Vec::new(),
            finish: Finish::Cancelled,
            encode: Phase::default(),
            describe: Phase::default(),
            prefill: Phase::default(),
            decode: Phase::default(),
            recomputed: 0,
            reshown: 0,
            forgotten: 0,
        };
        let handed_over;
        let question = match &mut self.describer {
            Some(describer) if !pictures.is_empty() => {
                if describer.swaps {
                    self.chat.unload()?;
                    describer.chat.load()?;
                }
                let described = describer.describe_all(pictures, cancel, &mut turn);
                if describer.swaps {
                    describer.chat.unload_and_forget()?;
                }
                if !described? {
                    return Ok(turn);
                }
                handed_over = describer.handover.render(&turn.descriptions, message)?;
                Question { text: &handed_over, pictures: &[], described: true }
            }
            _ => Question { text: message, pictures, described: false },
        };
        // Nothing to do where it is loaded.
        self.chat.load()?;
        let generation = Generation { sampler: &mut self.sampler, max_tokens: self.max_tokens, on_text, cancel };
        let answer = generate(&mut self.chat, question, generation)?;
        turn.encode.tokens += answer.encode.tokens;
        turn.encode.seconds += answer.encode.seconds;
        let Answer { text, finish, prefill, decode, recomputed, reshown, forgotten, .. } = answer;
        Ok(Turn { answer: text, finish, prefill, decode, recomputed, reshown, forgotten, ..turn })
    }

    /// Forgets the conversation; the models stay loaded.
    ///
    /// # Errors
    /// Those of the device.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.sampler = Sampler::new(*self.sampler.sampling())?;
        self.chat.reset()
    }

    /// Whether pictures can be talked about.
    pub fn sees(&self) -> bool {
        self.describer.is_some() || self.chat.sees()
    }

    /// What the user should know about the models, one line each.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        let describer = self.describer.iter().flat_map(|describer| describer.chat.notes());
        self.chat.notes().iter().chain(describer).map(String::as_str)
    }

    /// Positions of the chat model's cache.
    pub fn context(&self) -> u32 {
        self.chat.context()
    }

    /// Names of the bundle's models.
    pub fn model_names(&self) -> &[String] {
        &self.model_names
    }

    /// The device, for people.
    pub fn device_name(&self) -> &str {
        &self.device_name
    }

    /// What the models' buffers take, as their plans say.
    pub fn device_bytes(&self) -> u64 {
        self.device_bytes
    }

    /// What the bundle's memory plan says of its worst moment.
    pub fn planned_peak_bytes(&self) -> u64 {
        self.peak_bytes
    }
}

impl<D: Decoder> Describer<D> {
    /// Describes pictures one after the other; `false` where the user cancelled.
    fn describe_all(&mut self, pictures: &[Picture], cancel: &AtomicBool, turn: &mut Turn) -> Result<bool, Error> {
        for picture in pictures {
            if !self.describe(picture, cancel, turn)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Describes a picture in a conversation of its own; `false` where the user cancelled.
    fn describe(&mut self, picture: &Picture, cancel: &AtomicBool, turn: &mut Turn) -> Result<bool, Error> {
        let watch = Stopwatch::start();
        self.chat.reset()?;
        let mut sampler = Sampler::new(Sampling::default())?;
        let generation =
            Generation { sampler: &mut sampler, max_tokens: DESCRIPTION_TOKENS, on_text: &mut |_| (), cancel };
        let question = Question { text: &self.prompt, pictures: std::slice::from_ref(picture), described: false };
        let answer = self.chat.ask(question, generation)?;
        turn.encode.tokens += answer.encode.tokens;
        turn.encode.seconds += answer.encode.seconds;
        turn.describe.tokens += answer.tokens.len();
        turn.describe.seconds += watch.seconds() - answer.encode.seconds;
        if answer.finish == Finish::Cancelled || cancel.load(Ordering::Relaxed) {
            return Ok(false);
        }
        turn.descriptions.push(answer.text.trim().to_owned());
        Ok(true)
    }
}

/// Tokenizer and template of a model.
fn parts<'a>(
    model: &Model,
    system: Option<String>,
    entry: impl Fn(&str) -> Result<&'a str, Error>,
) -> Result<Parts, Error> {
    let text = model.text.as_ref().ok_or_else(|| chat::Error::NoTokenizer { model: model.name.clone() })?;
    let placeholder = model.image.as_ref().map(|image| image.placeholder.as_str());
    let tokenizer = Tokenizer::from_bytes(entry(&text.tokenizer)?.as_bytes())?;
    let template = match &text.chat_template {
        None => None,
        Some(name) => {
            let source = entry(name)?;
            Some((Template::parse(source, &text.special_tokens, placeholder, clock::now())?, source))
        }
    };
    let mut stop = text.stop.clone();
    // Also where it is no added token, which is all that the compiler looks at.
    stop.extend(text.special_tokens.get("eos_token").and_then(|token| tokenizer.token(token)));
    Ok(Parts { system, ..Parts::new(&model.name, tokenizer, template, model.image.clone(), stop)? })
}

#[cfg(test)]
mod tests;
