//! The requests that wait: first come, first served, a bounded number, each with its place.

use std::collections::VecDeque;

/// A bounded line of waiting entries.
#[derive(Debug)]
pub struct Queue<T> {
    waiting: VecDeque<(u64, T)>,
    limit: usize,
    next: u64,
}

impl<T> Queue<T> {
    /// An empty one for at most `limit` entries.
    pub fn new(limit: usize) -> Queue<T> {
        Queue { waiting: VecDeque::new(), limit, next: 0 }
    }

    /// Lets one more wait; gives its ticket, or the entry back where the line is full.
    ///
    /// # Errors
    /// The entry, where the line is full.
    pub fn push(&mut self, entry: T) -> Result<u64, T> {
        if self.waiting.len() >= self.limit {
            return Err(entry);
        }
        let ticket = self.next;
        self.next += 1;
        self.waiting.push_back((ticket, entry));
        Ok(ticket)
    }

    /// Takes the one that waited longest.
    pub fn pop(&mut self) -> Option<T> {
        self.waiting.pop_front().map(|(_, entry)| entry)
    }

    /// Takes one out of the line; `None` where it does not wait any more.
    pub fn remove(&mut self, ticket: u64) -> Option<T> {
        let at = self.waiting.iter().position(|(waiting, _)| *waiting == ticket)?;
        self.waiting.remove(at).map(|(_, entry)| entry)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many may wait.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// All of them with their places, from 1.
    pub fn places(&self) -> impl Iterator<Item = (usize, &T)> {
        (1..).zip(self.waiting.iter().map(|(_, entry)| entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served() {
        let mut queue = Queue::new(3);
        let tickets: Vec<u64> = ["a", "b", "c"].map(|entry| queue.push(entry).unwrap()).into();
        assert_eq!(queue.push("d"), Err("d"));
        assert_eq!(queue.remove(tickets[1]), Some("b"));
        assert_eq!(queue.remove(tickets[1]), None);
        assert_eq!(queue.places().collect::<Vec<_>>(), [(1, &"a"), (2, &"c")]);
        queue.push("e").unwrap();
        assert_eq!([queue.pop(), queue.pop(), queue.pop(), queue.pop()], [Some("a"), Some("c"), Some("e"), None]);
        assert_eq!((queue.len(), queue.limit()), (0, 3));
    }
}
