//! What a request hears while it waits and is answered, on its way from the worker to its client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dwindle_runtime::engine::{Event, Outcome, TokenInfo};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::error::ApiError;

/// The most bytes that may wait for a client that reads too slowly.
const MOST_WAITING: usize = 8 << 20;

/// What happens to a request, in the order in which it happens; the last is `Done` or `Failed`.
#[derive(Debug)]
pub enum Update {
    /// It waits; 1 is next.
    Queued(usize),
    /// A picture, counted from 1, is being described.
    Describing {
        /// Which one.
        picture: usize,
        /// Of how many.
        pictures: usize,
    },
    /// It is described.
    Described {
        /// Which one, from 1.
        picture: usize,
        /// Of how many.
        pictures: usize,
        /// The description.
        text: String,
        /// Whether it was remembered.
        cached: bool,
    },
    /// A picture, counted from 1, is being encoded.
    Encoding {
        /// Which one.
        picture: usize,
        /// Of how many.
        pictures: usize,
    },
    /// The prompt is being read.
    Prefill {
        /// Positions read.
        done: usize,
        /// Positions in all.
        total: usize,
        /// Positions that were cached.
        cached: usize,
    },
    /// More of the answer.
    Text {
        /// Characters.
        text: String,
        /// Tokens, where their probabilities were asked for.
        tokens: Vec<TokenInfo>,
    },
    /// The answer is complete.
    Done(Box<Outcome>),
    /// There is no answer, or no more of it.
    Failed(ApiError),
}

impl From<Event<'_>> for Update {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Describing { picture, pictures } => Update::Describing { picture: picture + 1, pictures },
            Event::Described { picture, pictures, text, cached } => {
                Update::Described { picture: picture + 1, pictures, text: text.to_owned(), cached }
            }
            Event::Encoding { picture, pictures } => Update::Encoding { picture: picture + 1, pictures },
            Event::Prefill { done, total, cached } => Update::Prefill { done, total, cached },
            Event::Text { text, tokens } => Update::Text { text: text.to_owned(), tokens: tokens.to_vec() },
        }
    }
}

impl Update {
    fn bytes(&self) -> usize {
        let held = match self {
            Update::Text { text, tokens } => {
                let top = tokens.iter().map(|token| token.bytes.len() + token.top.len() * 48);
                text.len() + top.sum::<usize>()
            }
            Update::Described { text, .. } => text.len(),
            _ => 0,
        };
        held + size_of::<Update>()
    }
}

/// The worker's end.
#[derive(Clone, Debug)]
pub struct Sink {
    sender: UnboundedSender<Update>,
    waiting: Arc<AtomicUsize>,
    cancel: Arc<AtomicBool>,
}

/// The client's end.
#[derive(Debug)]
pub struct Updates {
    receiver: UnboundedReceiver<Update>,
    waiting: Arc<AtomicUsize>,
}

/// Both ends of a request's channel.
pub fn channel() -> (Sink, Updates) {
    let (sender, receiver) = unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let sink = Sink { sender, waiting: Arc::clone(&waiting), cancel: Arc::default() };
    (sink, Updates { receiver, waiting })
}

impl Sink {
    /// Tells the client; `false` where nobody listens any more, or the client is too far behind.
    pub fn send(&self, update: Update) -> bool {
        let is_last = matches!(update, Update::Done(_) | Update::Failed(_));
        let bytes = update.bytes();
        let waiting = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes > MOST_WAITING && !is_last {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.sender.send(update).is_ok()
    }

    /// Set where the client does not want the answer any more.
    pub fn cancel(&self) -> &Arc<AtomicBool> {
        &self.cancel
    }
}

impl Updates {
    /// The next one; `None` after the last.
    pub async fn next(&mut self) -> Option<Update> {
        let update = self.receiver.recv().await?;
        self.waiting.fetch_sub(update.bytes(), Ordering::Relaxed);
        Some(update)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_does_not_read_is_given_up() {
        let (sink, mut updates) = channel();
        let piece = || Update::Text { text: "x".repeat(1 << 20), tokens: Vec::new() };
        let sent = (0..20).take_while(|_| sink.send(piece())).count();
        assert!((7..=8).contains(&sent), "{sent}");
        // The reason still reaches it.
        assert!(sink.send(Update::Failed(ApiError::ending())));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for _ in 0..sent {
                assert!(matches!(updates.next().await, Some(Update::Text { .. })));
            }
            assert!(matches!(updates.next().await, Some(Update::Failed(_))));
        });
        // What was read makes room.
        assert!(sink.send(piece()));
    }
}
