//! Assigns intermediate values to scratch slots by their lifetimes.
//!
//! A slot is one buffer, shared by all functions of a model (they never run at the same time). Values whose lifetimes
//! overlap never share a slot. Greedy by size, largest first: a slot is as large as its first value, and each further value goes to
//! the smallest slot that is free during its life, which is near optimal for chains of layers (Pisarchyk and
//! Lee 2020, "Efficient memory management for deep neural net inference", "greedy by size for shared objects").

/// An intermediate value of one function: its size, and the steps from the first to the last that touch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Temporary {
    /// Bytes.
    pub bytes: u64,
    /// Step that writes it first.
    pub first: usize,
    /// Last step that reads or writes it.
    pub last: usize,
}

impl Temporary {
    /// Whether both are alive during some step.
    pub fn overlaps(&self, other: &Temporary) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Slots of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// Bytes of each slot.
    pub bytes: Vec<u64>,
    /// For each function, for each of its temporaries, the slot.
    pub assignment: Vec<Vec<usize>>,
}

/// Assigns the temporaries of each function.
pub fn assign(functions: &[Vec<Temporary>]) -> Slots {
    let mut order: Vec<(usize, usize)> =
        functions.iter().enumerate().flat_map(|(f, values)| (0..values.len()).map(move |i| (f, i))).collect();
    order.sort_by_key(|&(f, i)| (std::cmp::Reverse(functions[f][i].bytes), f, functions[f][i].first, i));

    let mut slots = Slots { bytes: Vec::new(), assignment: functions.iter().map(|v| vec![0; v.len()]).collect() };
    let mut members: Vec<Vec<(usize, usize)>> = Vec::new();
    for (f, i) in order {
        let value = &functions[f][i];
        let free = |slot: &usize| members[*slot].iter().all(|&(g, j)| g != f || !functions[g][j].overlaps(value));
        let best = (0..members.len()).filter(free).min_by_key(|&slot| (slots.bytes[slot], slot));
        let slot = best.unwrap_or_else(|| {
            members.push(Vec::new());
            slots.bytes.push(value.bytes);
            members.len() - 1
        });
        members[slot].push((f, i));
        slots.assignment[f][i] = slot;
    }
    slots
}

/// The least scratch memory that any assignment could need: the most bytes alive during one step.
pub fn lower_bound(functions: &[Vec<Temporary>]) -> u64 {
    let alive_at = |values: &[Temporary], step: usize| -> u64 {
        values.iter().filter(|v| v.first <= step && step <= v.last).map(|v| v.bytes).sum()
    };
    functions.iter().flat_map(|values| values.iter().map(|v| alive_at(values, v.first))).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(bytes: u64, first: usize, last: usize) -> Temporary {
        Temporary { bytes, first, last }
    }

    #[test]
    fn chain_alternates_between_two_slots() {
        let chain: Vec<_> = (0..10).map(|i| value(64, i, i + 1)).collect();
        let slots = assign(&[chain]);
        assert_eq!(slots.bytes, [64, 64]);
        assert_eq!(slots.assignment[0], [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn functions_share_slots() {
        let slots = assign(&[vec![value(100, 0, 3), value(50, 1, 2)], vec![value(60, 0, 1)]]);
        assert_eq!(slots.bytes, [100, 50]);
        assert_eq!(slots.assignment, [vec![0, 1], vec![0]]);
    }

    fn temporaries() -> impl Strategy<Value = Vec<Vec<Temporary>>> {
        let value = (1_u64..100, 0_usize..40, 0_usize..6).prop_map(|(n, first, len)| value(n * 16, first, first + len));
        prop::collection::vec(prop::collection::vec(value, 0..40), 1..4)
    }

    proptest! {
        #[test]
        fn no_two_values_alive_at_once_share_a_slot(functions in temporaries()) {
            let slots = assign(&functions);
            for (values, assignment) in functions.iter().zip(&slots.assignment) {
                for (i, a) in values.iter().enumerate() {
                    prop_assert!(a.bytes <= slots.bytes[assignment[i]]);
                    for (j, b) in values.iter().enumerate().skip(i + 1) {
                        prop_assert!(assignment[i] != assignment[j] || !a.overlaps(b));
                    }
                }
            }
            let total: u64 = slots.bytes.iter().sum();
            prop_assert!(total >= lower_bound(&functions));
            prop_assert!(total <= functions.iter().flatten().map(|v| v.bytes).sum());
        }
    }
}
