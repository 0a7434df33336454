//! Puts an engine together from a bundle: models, tokenizers, templates, and whether it all fits into memory.

use dwindle_bundle::{Bundle, Ensemble, Model, Moment, Residency};

use super::describe::{Describer, Descriptions};
use super::talker::Talker;
use super::{Engine, EngineOptions, Info};
use crate::chat::{self, Decoder, Parts, Pool};
use crate::template::{Handover, Template};
use crate::tokenizer::Tokenizer;
use crate::{Error, Sampling, budget, clock, device};

impl Engine {
    /// Loads the models of a bundle onto a device.
    ///
    /// # Errors
    /// [`Error::Memory`] where the plan, with all saved conversations, does not fit; those of the device and of the bundle's parts;
    /// [`chat::Error`] where a tokenizer or the ensemble is missing.
    pub fn open(bundle: &Bundle, options: &EngineOptions) -> Result<Engine, Error> {
        let manifest = bundle.manifest();
        let device = device::open(&options.device, &manifest.target)?;
        let slots = options.slots.max(1);
        let answering = answering(&manifest.models, manifest.ensemble.as_ref())?;
        let saved = answering.memory.states.saturating_mul(slots as u64 - 1);
        let worst = manifest.memory.worst().map(|worst| with_saved(worst, saved));
        if let Some(worst) = &worst {
            budget::check(worst, device.place())?;
        }
        let load = |model: &Model, slots: usize, now: bool| {
            let loaded = crate::Model::unloaded(&*device, model, bundle)?;
            let mut pool = Pool::new(loaded, slots);
            if now {
                pool.load()?;
            }
            Ok(pool)
        };
        let text = |name: &str| Ok(bundle.text(name)?);
        let (models, ensemble) = (&manifest.models, manifest.ensemble.as_ref());
        let mut engine = Engine::assemble(models, ensemble, slots, &device.name(), load, text)?;
        engine.info.planned_peak_bytes = manifest.memory.peak.saturating_add(saved);
        Ok(engine)
    }
}

/// A moment with further saved conversations, which are there whatever happens.
fn with_saved(moment: &Moment, bytes: u64) -> Moment {
    Moment { states: moment.states.saturating_add(bytes), ..moment.clone() }
}

fn names(models: &[Model]) -> Vec<String> {
    models.iter().map(|model| model.name.clone()).collect()
}

fn find<'m>(models: &'m [Model], name: &str) -> Result<&'m Model, chat::Error> {
    let found = models.iter().find(|model| model.name == name);
    found.ok_or_else(|| chat::Error::NoModel { wanted: name.to_owned(), found: names(models) })
}

/// The model that answers.
fn answering<'m>(models: &'m [Model], ensemble: Option<&Ensemble>) -> Result<&'m Model, chat::Error> {
    match (models, ensemble) {
        (_, Some(ensemble)) => find(models, &ensemble.chat),
        ([model], None) => Ok(model),
        _ => Err(chat::Error::Models { models: names(models) }),
    }
}

impl<D: Decoder> Engine<D> {
    /// Puts an engine together from models; `load` makes each one's decoder with a number of sequences, loaded or not, `text` reads an
    /// entry.
    pub(crate) fn assemble<'a>(
        models: &[Model],
        ensemble: Option<&Ensemble>,
        slots: usize,
        device_name: &str,
        load: impl Fn(&Model, usize, bool) -> Result<D, Error>,
        text: impl Fn(&str) -> Result<&'a str, Error>,
    ) -> Result<Engine<D>, Error> {
        let talking = answering(models, ensemble)?;
        let talking_parts = parts(talking, &text)?;
        // Tokenizers are read before weights are there: reading one takes more than it needs afterwards.
        let describer = match ensemble {
            None => None,
            Some(ensemble) => {
                let handover = Handover::parse(&ensemble.handover)?;
                let seeing = find(models, &ensemble.describe)?;
                let parts = parts(seeing, &text)?;
                let swaps = ensemble.residency == Residency::Swap;
                let talker = Talker::new(load(seeing, 1, !swaps)?, parts);
                let (prompt, known) = (ensemble.describe_prompt.clone(), Descriptions::default());
                Some(Describer { talker, prompt, handover, swaps, known })
            }
        };
        let talker = Talker::new(load(talking, slots, true)?, talking_parts);
        let seeing = describer.as_ref().map(|describer| &describer.talker.parts);
        let parts = &talker.parts;
        let saved = talking.memory.states.saturating_mul(slots.max(1) as u64 - 1);
        let bytes: u64 = models.iter().map(|model| model.memory.total()).sum();
        let info = Info {
            models: names(models),
            answering: talking.name.clone(),
            describer: seeing.map(|parts| parts.model.clone()),
            context: talking.context,
            vocab_size: talking.vocab_size,
            sees: seeing.is_some() || parts.image.is_some(),
            has_template: parts.template.is_some(),
            knows_tools: parts.template.as_ref().is_some_and(Template::knows_tools),
            device: device_name.to_owned(),
            device_bytes: bytes.saturating_add(saved),
            planned_peak_bytes: 0,
            slot_bytes: talking.memory.states,
            slots,
            sampling: Sampling::from(&talking.sampling),
            notes: [parts].into_iter().chain(seeing).flat_map(|parts| parts.notes.iter().cloned()).collect(),
        };
        Ok(Engine { talker, describer, info })
    }
}

/// Tokenizer and template of a model.
fn parts<'a>(model: &Model, entry: impl Fn(&str) -> Result<&'a str, Error>) -> Result<Parts, Error> {
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
    Parts::new(&model.name, tokenizer, template, model.image.clone(), stop)
}
