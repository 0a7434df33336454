//! A decoder for tests: remembers what was done to it and says what it is told to.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::{Decoder, Parts};
use crate::Error;
use crate::image::Blend;
use crate::sequence::Row;
use crate::template::Template;
use crate::tokenizer::Tokenizer;

pub const VOCABULARY: usize = 4096;

/// What a toy remembers; tests hold it, too.
#[derive(Debug, Default)]
pub struct Memory {
    pub context: u32,
    /// The cache of the first sequence.
    pub rows: Vec<Row>,
    /// Those of the others.
    pub others: Vec<Vec<Row>>,
    /// Copies of beginnings: from, to, positions.
    pub forks: Vec<(usize, usize, u32)>,
    /// Rows of a prefill after which it asks whether to go on; 0: never.
    pub chunk: usize,
    /// The tokens that it says next. When there are none, it fails.
    pub script: VecDeque<u32>,
    /// All tiles that were encoded, in order, with the first pixel.
    pub tiles: Vec<(u32, f32)>,
    /// Whether it was unloaded, keeping positions or not, and loaded since: in order.
    pub residence: Vec<&'static str>,
    /// The tokens of each prefill.
    pub prefills: Vec<usize>,
}

impl Memory {
    pub fn rows_of(&mut self, slot: usize) -> &mut Vec<Row> {
        match slot {
            0 => &mut self.rows,
            slot => &mut self.others[slot - 1],
        }
    }

    /// The cached tokens; `None` for image rows.
    pub fn tokens(&self) -> Vec<Option<u32>> {
        self.rows.iter().map(|row| (row.blend == Blend::NONE).then_some(row.token)).collect()
    }
}

#[derive(Debug)]
pub struct Toy {
    pub memory: Rc<RefCell<Memory>>,
    logits: Vec<f32>,
}

impl Toy {
    pub fn new(context: u32) -> Toy {
        Toy::with_slots(context, 1)
    }

    pub fn with_slots(context: u32, slots: usize) -> Toy {
        let memory = Memory { context, others: vec![Vec::new(); slots - 1], ..Memory::default() };
        Toy { memory: Rc::new(RefCell::new(memory)), logits: vec![0.0; VOCABULARY] }
    }

    fn append(&mut self, slot: usize, rows: &[Row]) -> Result<&[f32], Error> {
        let mut memory = self.memory.borrow_mut();
        let context = memory.context as usize;
        let cached = memory.rows_of(slot);
        cached.extend_from_slice(rows);
        assert!(cached.len() <= context, "more rows than positions");
        let lost = || Error::DeviceLost { what: "a test".into(), why: "nothing left to say".into() };
        let next = memory.script.pop_front().ok_or_else(lost)?;
        self.logits.fill(0.0);
        self.logits[next as usize] = 1.0;
        Ok(&self.logits)
    }
}

impl Decoder for Toy {
    fn context(&self) -> u32 {
        self.memory.borrow().context
    }

    fn slots(&self) -> usize {
        1 + self.memory.borrow().others.len()
    }

    fn prefill(
        &mut self,
        slot: usize,
        mut rows: &[Row],
        goes_on: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Option<&[f32]>, Error> {
        assert!(!rows.is_empty());
        let chunk = self.memory.borrow().chunk;
        self.memory.borrow_mut().prefills.push(rows.len());
        while chunk > 0 && rows.len() > chunk {
            let position = {
                let mut memory = self.memory.borrow_mut();
                memory.rows_of(slot).extend_from_slice(&rows[..chunk]);
                memory.rows_of(slot).len()
            };
            rows = &rows[chunk..];
            if !goes_on(position as u32) {
                return Ok(None);
            }
        }
        self.append(slot, rows).map(Some)
    }

    fn decode(&mut self, slot: usize, token: u32) -> Result<&[f32], Error> {
        self.append(slot, &[Row::from(token)])
    }

    fn position(&self, slot: usize) -> u32 {
        self.memory.borrow_mut().rows_of(slot).len() as u32
    }

    fn encode_tile(&mut self, _: usize, tile: u32, pixels: &[f32]) -> Result<(), Error> {
        self.memory.borrow_mut().tiles.push((tile, pixels[0]));
        Ok(())
    }

    fn truncate(&mut self, slot: usize, position: u32) -> Result<(), Error> {
        let mut memory = self.memory.borrow_mut();
        let rows = memory.rows_of(slot);
        assert!(position as usize <= rows.len(), "going back to {position} of {}", rows.len());
        rows.truncate(position as usize);
        Ok(())
    }

    fn fork(&mut self, from: usize, to: usize, position: u32) -> Result<(), Error> {
        let mut memory = self.memory.borrow_mut();
        let rows = memory.rows_of(from)[..position as usize].to_vec();
        *memory.rows_of(to) = rows;
        memory.forks.push((from, to, position));
        Ok(())
    }

    fn unload(&mut self, forget: bool) -> Result<(), Error> {
        let mut memory = self.memory.borrow_mut();
        memory.residence.push(if forget { "forget" } else { "unload" });
        assert!(!forget || memory.rows.is_empty(), "positions are forgotten before their memory goes");
        Ok(())
    }

    fn load(&mut self) -> Result<(), Error> {
        self.memory.borrow_mut().residence.push("load");
        Ok(())
    }
}

pub fn demo(path: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../demo/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The demo's chat model without its weights, with another template.
pub fn parts_with(template: &str) -> Parts {
    let tokens = [("bos_token".to_owned(), "<bos>".to_owned())].into();
    parts_of(&demo("pocket-gemma/tokenizer.json"), template, &tokens, vec![1, 6])
}

/// A model that only reads text, with a tokenizer and a template.
pub fn parts_of(tokenizer: &[u8], template: &str, tokens: &BTreeMap<String, String>, stop: Vec<u32>) -> Parts {
    let tokenizer = Tokenizer::from_bytes(tokenizer).unwrap();
    let parsed = Template::parse(template, tokens, None, std::time::UNIX_EPOCH).unwrap();
    Parts::new("talker", tokenizer, Some((parsed, template)), None, stop).unwrap()
}

/// The demo's chat template.
pub fn chat_template() -> String {
    let config: serde_json::Value = serde_json::from_slice(&demo("pocket-gemma/tokenizer_config.json")).unwrap();
    config["chat_template"].as_str().unwrap().to_owned()
}
