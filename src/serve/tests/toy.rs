//! An engine without a model: its tokens are bytes, and the last message tells it what to do.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use dwindle_constrain::{Token, Vocabulary};
use dwindle_runtime::engine::{Event, Outcome, Part, Prompt, Request, TokenInfo};
use dwindle_runtime::{Error, Finish, Phase, Sampling, chat};

use crate::serve::engine::{Engine, Info, Tokens};

const END: u32 = 256;
const VOCABULARY: u32 = 260;

/// What a test wants to know afterwards.
#[derive(Debug, Default)]
pub struct Seen {
    /// Texts of the prompts, as they were answered.
    pub prompts: Mutex<Vec<String>>,
    /// Definitions of functions that reached the engine.
    pub tools: AtomicUsize,
    /// Answers that were cancelled.
    pub cancelled: AtomicUsize,
    /// Answers that are being written.
    pub running: AtomicUsize,
    /// How often the weights were released.
    pub unloaded: AtomicUsize,
    /// How tokens of the last request were drawn.
    pub sampling: Mutex<Sampling>,
}

/// The engine.
pub struct Toy {
    pub seen: Arc<Seen>,
    pub info: Info,
    before: Vec<u8>,
}

impl Toy {
    pub fn new(seen: Arc<Seen>, info: Info) -> Toy {
        Toy { seen, info, before: Vec::new() }
    }
}

/// What a toy says of itself.
pub fn info() -> Info {
    Info {
        models: vec!["toy-chat".to_owned(), "toy-eyes".to_owned()],
        describer: Some("toy-eyes".to_owned()),
        context: 4096,
        vocab_size: VOCABULARY,
        sees: true,
        template: Some("{% for m in messages %}{{ m.content }}{% endfor %}".to_owned()),
        knows_tools: false,
        device: "paper".to_owned(),
        planned_peak_bytes: 1 << 20,
        slot_bytes: 1 << 10,
        slots: 3,
        sampling: Sampling { temperature: 0.5, ..Sampling::default() },
        notes: Vec::new(),
    }
}

struct Bytes;

impl Tokens for Bytes {
    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, Error> {
        let opening = add_special.then_some(257);
        Ok(opening.into_iter().chain(text.bytes().map(u32::from)).collect())
    }

    fn bytes(&self, token: u32) -> Vec<u8> {
        u8::try_from(token).map_or(Vec::new(), |byte| vec![byte])
    }

    fn vocabulary(&self) -> Vocabulary {
        let token = |number: u32| u8::try_from(number).map_or(Token::Control, |byte| Token::Bytes(vec![byte]));
        Vocabulary { tokens: (0..VOCABULARY).map(token).collect(), ends: vec![END] }
    }
}

fn text(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Tokens(tokens) => tokens.iter().filter_map(|token| u8::try_from(*token).ok()).map(char::from).collect(),
        Prompt::Messages { messages, .. } => {
            let part = |part: &Part| match part {
                Part::Text(text) => text.clone(),
                Part::Picture(picture) => format!("[{}x{}]", picture.width(), picture.height()),
            };
            let line = |message: &dwindle_runtime::engine::Message| {
                let calls: String =
                    message.tool_calls.iter().map(|call| format!("({} {})", call.name, call.arguments)).collect();
                format!("{:?}: {}{calls}\n", message.role, message.content.iter().map(part).collect::<String>())
            };
            messages.iter().map(line).collect()
        }
        _ => String::new(),
    }
}

/// The last line of a prompt, which says what to do.
fn order(text: &str) -> &str {
    let last = text.trim_end().lines().last().unwrap_or("");
    last.split_once(": ").map_or(last, |(_, order)| order)
}

impl Engine for Toy {
    fn info(&self) -> Info {
        self.info.clone()
    }

    fn tokens(&self) -> Arc<dyn Tokens> {
        Arc::new(Bytes)
    }

    fn unload(&mut self) -> Result<(), Error> {
        self.seen.unloaded.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn generate(
        &mut self,
        mut request: Request,
        events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
        cancel: &AtomicBool,
    ) -> Result<Outcome, Error> {
        let prompt = text(&request.prompt);
        self.seen.prompts.lock().unwrap().push(prompt.clone());
        *self.seen.sampling.lock().unwrap() = request.sampling;
        let mut outcome = Outcome::default_for_tests(prompt.len());
        let mut pictures = 0;
        if let Prompt::Messages { messages, tools } = &request.prompt {
            self.seen.tools.store(tools.len(), Ordering::SeqCst);
            let is_picture = |part: &&Part| matches!(part, Part::Picture(_));
            pictures = messages.iter().flat_map(|message| &message.content).filter(is_picture).count();
        }
        for picture in 0..pictures {
            let text = format!("picture {picture}");
            let _ = events(Event::Describing { picture, pictures });
            let _ = events(Event::Described { picture, pictures, text: &text, cached: false });
            outcome.descriptions.push(text);
        }
        let common = self.before.iter().zip(prompt.as_bytes()).take_while(|(a, b)| a == b).count();
        outcome.cached_tokens = common.min(prompt.len().saturating_sub(1));
        self.before = prompt.clone().into_bytes();
        let (order, argument) = order(&prompt).split_once(' ').unwrap_or((order(&prompt), ""));
        if order == "overflow" && !request.may_forget {
            return Err(chat::Error::TooLong { tokens: 5000, context: 4096 }.into());
        }
        assert_ne!(order, "panic", "the message says so");
        let total = prompt.len();
        let _ = events(Event::Prefill { done: total, total, cached: outcome.cached_tokens });
        self.seen.running.fetch_add(1, Ordering::SeqCst);
        let answer = match order {
            "say" => argument.replace("\\n", "\n"),
            "long" => "0123456789".repeat(argument.parse::<usize>().unwrap_or(100) / 10),
            "wait" | "slow" => "x".repeat(2000),
            "overflow" => "forgotten".to_owned(),
            _ => format!("You said: {order} {argument}").trim_end().to_owned(),
        };
        let pause = match order {
            "wait" => Duration::from_millis(5),
            "slow" => Duration::from_millis(2),
            _ => Duration::ZERO,
        };
        let mut planned = answer.bytes().map(u32::from).chain([END]);
        let mut waiting = Vec::new();
        let most = request.max_tokens.unwrap_or(4096);
        outcome.finish = Finish::Length;
        let mut state = request.sampling.seed | 1;
        let mut is_complete = false;
        while outcome.tokens.len() < most && !is_complete {
            std::thread::sleep(pause);
            if cancel.load(Ordering::Relaxed) {
                outcome.finish = Finish::Cancelled;
                break;
            }
            let token = match &mut request.mask {
                None => planned.next().unwrap_or(END),
                Some(mask) => {
                    let mut logits: Vec<f32> = (0..VOCABULARY)
                        .map(|token| {
                            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                            let closes = token == END || [34, 125].contains(&token);
                            (state >> 33) as f32 / (1u64 << 31) as f32 + if closes { 0.6 } else { 0.0 }
                        })
                        .collect();
                    mask.mask(&mut logits)?;
                    let best =
                        (0..VOCABULARY).max_by(|a, b| logits[*a as usize].total_cmp(&logits[*b as usize])).unwrap();
                    is_complete = mask.accept(best)?;
                    best
                }
            };
            if token == END {
                outcome.finish = Finish::Stop;
                break;
            }
            outcome.tokens.push(token);
            waiting.push(token as u8);
            if is_complete {
                outcome.finish = Finish::Stop;
            }
            let Ok(piece) = std::str::from_utf8(&waiting) else { continue };
            let whole = format!("{}{piece}", outcome.text);
            if let Some((stop, at)) = request.stop.iter().find_map(|stop| Some((stop, whole.find(stop.as_str())?))) {
                // Everything before it is said already but the beginning of the stop text, which single bytes never hold back.
                outcome.text.truncate(at);
                outcome.stopped_by = Some(stop.clone());
                outcome.finish = Finish::Stop;
                break;
            }
            let holds = request.stop.iter().any(|stop| (1..stop.len()).any(|n| whole.ends_with(&stop[..n])));
            if holds {
                continue;
            }
            let info = TokenInfo {
                token,
                bytes: vec![token as u8],
                logprob: -0.5,
                top: vec![(token, vec![token as u8], -0.5)],
            };
            let tokens = request.top_logprobs.map(|_| vec![info]).unwrap_or_default();
            let going = events(Event::Text { text: piece, tokens: &tokens });
            outcome.text = whole;
            waiting.clear();
            if going.is_break() {
                outcome.finish = Finish::Cancelled;
                break;
            }
        }
        self.seen.running.fetch_sub(1, Ordering::SeqCst);
        if outcome.finish == Finish::Cancelled {
            self.seen.cancelled.fetch_add(1, Ordering::SeqCst);
        }
        outcome.prefill = Phase { tokens: total - outcome.cached_tokens, seconds: 0.25 };
        outcome.decode = Phase { tokens: outcome.tokens.len(), seconds: 0.5 };
        Ok(outcome)
    }
}

trait ForTests {
    fn default_for_tests(prompt_tokens: usize) -> Self;
}

impl ForTests for Outcome {
    fn default_for_tests(prompt_tokens: usize) -> Self {
        Outcome {
            text: String::new(),
            tokens: Vec::new(),
            finish: Finish::Stop,
            stopped_by: None,
            prompt_tokens,
            cached_tokens: 0,
            descriptions: Vec::new(),
            forgotten: 0,
            recomputed: 0,
            reshown: 0,
            encode: Phase::default(),
            describe: Phase::default(),
            prefill: Phase::default(),
            decode: Phase::default(),
        }
    }
}
