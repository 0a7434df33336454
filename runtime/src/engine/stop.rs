//! Finds the texts that end an answer while it comes, wherever tokens begin and end.

/// The text of an answer before any of some texts. What might become one of them is held back.
#[derive(Debug)]
pub(crate) struct StopTexts {
    stops: Vec<String>,
    held: String,
}

/// What an answer's next piece brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Released {
    /// Text that is none of the stops, whatever follows.
    pub text: String,
    /// The stop that was found behind it: nothing follows.
    pub stop: Option<String>,
}

impl StopTexts {
    /// Empty ones, which would end any answer before it begins, are left out.
    pub(crate) fn new(stops: &[String]) -> StopTexts {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        StopTexts { stops, held: String::new() }
    }

    /// Takes the answer's next piece. Of several stops the one that is complete first counts, of those the one that begins first.
    pub(crate) fn push(&mut self, piece: &str) -> Released {
        self.held += piece;
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop)));
        if let Some((start, stop)) = found.min_by_key(|(start, stop)| (start + stop.len(), *start)) {
            let stop = stop.clone();
            let text = self.held[..start].to_owned();
            self.held.clear();
            return Released { text, stop: Some(stop) };
        }
        let longest = self.stops.iter().map(|stop| self.begun(stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - longest);
        Released { text: std::mem::replace(&mut self.held, rest), stop: None }
    }

    /// What is held back, once nothing follows.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// How many of the last bytes are the beginning of `stop`.
    fn begun(&self, stop: &str) -> usize {
        let lengths = (1..stop.len()).rev().filter(|&length| stop.is_char_boundary(length));
        lengths.into_iter().find(|&length| self.held.ends_with(&stop[..length])).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out of pieces: all text, and the stop.
    #[track_caller]
    fn check(stops: &[&str], pieces: &[&str], given: &[&str], stop: Option<&str>) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut texts = StopTexts::new(&stops);
        let mut all = Vec::new();
        let mut found = None;
        for piece in pieces {
            let released = texts.push(piece);
            all.push(released.text);
            found = released.stop;
            if found.is_some() {
                break;
            }
        }
        if found.is_none() {
            all.push(texts.finish());
        }
        assert_eq!((all, found.as_deref()), (given.iter().map(|text| (*text).to_owned()).collect(), stop));
    }

    #[test]
    fn stops_are_found_across_pieces() {
        check(&["END"], &["abc", "E", "N", "D", "x"], &["abc", "", "", ""], Some("END"));
        check(&["END"], &["abcEN", "abc"], &["abc", "ENabc", ""], None);
        check(&["END"], &["EEN", "D"], &["E", ""], Some("END"));
        check(&["aab"], &["aaab"], &["a"], Some("aab"));
        check(&["\n\n"], &["one\n", "\ntwo"], &["one", ""], Some("\n\n"));
        check(&["é!"], &["aé", "!"], &["a", ""], Some("é!"));
        check(&["", "x"], &["ab", "x"], &["ab", ""], Some("x"));
    }

    #[test]
    fn what_is_held_back_comes_at_the_end() {
        check(&["stop"], &["a sto"], &["a ", "sto"], None);
        check(&[], &["a", "b"], &["a", "b", ""], None);
    }

    #[test]
    fn the_stop_that_is_complete_first_counts() {
        check(&["abcd", "bc"], &["xab", "c", "d"], &["x", "a"], Some("bc"));
        check(&["bc", "abcd"], &["xabcd"], &["xa"], Some("bc"));
        check(&["bc", "abc"], &["xabc"], &["x"], Some("abc"));
    }

    /// Whatever the pieces, the same text comes out.
    #[test]
    fn pieces_make_no_difference() {
        let text = "aabbaabab ab aab bba";
        for stops in [&["abab"][..], &["ba", "bb"], &["zz"], &["aab b"], &["b a", "aabb"]] {
            let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
            let run = |width: usize| {
                let mut texts = StopTexts::new(&stops);
                let mut all = String::new();
                for start in (0..text.len()).step_by(width) {
                    let released = texts.push(&text[start..text.len().min(start + width)]);
                    all += &released.text;
                    if released.stop.is_some() {
                        return (all, released.stop);
                    }
                }
                (all + &texts.finish(), None)
            };
            for width in 2..=text.len() {
                assert_eq!(run(width), run(1), "{stops:?} in pieces of {width}");
            }
        }
    }
}
