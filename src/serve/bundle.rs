//! The engine of a bundle, as the server sees it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use dwindle_constrain::Vocabulary;
use dwindle_runtime::Error;
use dwindle_runtime::engine::{self, EngineOptions, Event, Outcome, Request};
use dwindle_runtime::tokenizer::Tokenizer;

use super::engine::{Engine, Info, Tokens};
use crate::models::Models;
use crate::restricted;

/// Opens the models that the user named, with memory for so many saved conversations.
///
/// # Errors
/// They cannot be opened, or do not fit into memory.
pub fn open(models: &Models, slots: usize) -> Result<Box<dyn Engine>> {
    let bundle = models.open()?;
    let options = EngineOptions { device: models.device.choice(), slots };
    Ok(Box::new(engine::Engine::open(&bundle, &options)?))
}

/// A model's tokenizer and which tokens end its answers.
struct Shared {
    tokenizer: Arc<Tokenizer>,
    vocab_size: u32,
    ends: Vec<u32>,
}

impl Tokens for Shared {
    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, Error> {
        Ok(self.tokenizer.encode(text, add_special)?)
    }

    fn bytes(&self, token: u32) -> Vec<u8> {
        self.tokenizer.token_bytes(token)
    }

    fn vocabulary(&self) -> Vocabulary {
        restricted::vocabulary(&self.tokenizer, self.vocab_size, &self.ends)
    }
}

impl Engine for engine::Engine {
    fn info(&self) -> Info {
        let info = engine::Engine::info(self);
        Info {
            models: info.models.clone(),
            describer: info.describer.clone(),
            context: info.context,
            vocab_size: info.vocab_size,
            sees: info.sees,
            template: self.template_source().filter(|_| info.has_template).map(str::to_owned),
            knows_tools: info.knows_tools,
            device: info.device.clone(),
            planned_peak_bytes: info.planned_peak_bytes,
            slot_bytes: info.slot_bytes,
            slots: info.slots,
            sampling: info.sampling,
            notes: info.notes.clone(),
        }
    }

    fn tokens(&self) -> Arc<dyn Tokens> {
        let vocab_size = engine::Engine::info(self).vocab_size;
        Arc::new(Shared { tokenizer: self.shared_tokenizer(), vocab_size, ends: self.ends().to_vec() })
    }

    fn generate(
        &mut self,
        request: Request,
        events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
        cancel: &AtomicBool,
    ) -> Result<Outcome, Error> {
        engine::Engine::generate(self, request, events, cancel)
    }

    fn unload(&mut self) -> Result<(), Error> {
        // Conversations are worth more than their memory: without them, everything is read again.
        engine::Engine::unload(self, true)
    }
}
