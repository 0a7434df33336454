//! A stable sort whose comparisons may fail and need not be consistent.

use std::cmp::Ordering;

use super::fault::Result;

/// Sorts; values that cannot be compared count as equal. Rust's own sort panics at an order that contradicts itself,
/// which a NaN among floats makes.
pub(super) fn sort<T>(items: Vec<T>, mut order: impl FnMut(&T, &T) -> Result<Option<Ordering>>) -> Result<Vec<T>> {
    let mut runs: Vec<Vec<T>> = items.into_iter().map(|item| vec![item]).collect();
    while runs.len() > 1 {
        let mut merged = Vec::with_capacity(runs.len().div_ceil(2));
        let mut pairs = runs.into_iter();
        while let Some(left) = pairs.next() {
            merged.push(match pairs.next() {
                Some(right) => merge(left, right, &mut order)?,
                None => left,
            });
        }
        runs = merged;
    }
    Ok(runs.pop().unwrap_or_default())
}

fn merge<T>(left: Vec<T>, right: Vec<T>, order: &mut impl FnMut(&T, &T) -> Result<Option<Ordering>>) -> Result<Vec<T>> {
    let mut result = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let from_right = order(b, a)? == Some(Ordering::Less);
        result.extend(if from_right { right.next() } else { left.next() });
    }
    result.extend(left);
    result.extend(right);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_and_keeps_the_order_of_equals() {
        for length in 0..40_usize {
            let items: Vec<(usize, usize)> = (0..length).map(|i| (i * 7 % 5, i)).collect();
            let mut expected = items.clone();
            expected.sort();
            let sorted = sort(items, |a, b| Ok(Some(a.0.cmp(&b.0)))).unwrap();
            assert_eq!(sorted, expected);
        }
    }

    #[test]
    fn contradictions_are_survived() {
        let items: Vec<f64> = (0..100).map(|i| if i % 3 == 0 { f64::NAN } else { f64::from(i) }).collect();
        assert_eq!(sort(items, |a, b| Ok(a.partial_cmp(b))).unwrap().len(), 100);
    }
}
