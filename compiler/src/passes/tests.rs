//! Checks that all passes share, and tests of the whole list.

use expect_test::Expect;

use super::*;
use crate::graph::parse::parse;

#[track_caller]
fn parsed(text: &str) -> Graph {
    let graph = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    verify(&graph).unwrap_or_else(|error| panic!("{error}\n{graph}"));
    graph
}

#[track_caller]
fn pass(name: &str) -> &'static Pass {
    PASSES.iter().find(|pass| pass.name == name).expect("a pass of this name")
}

/// Runs a pass and checks its result's text, that it verifies, and that running it again changes nothing.
#[track_caller]
pub(super) fn check(name: &str, before: &str, after: Expect) {
    let mut graph = parsed(before);
    (pass(name).run)(&mut graph);
    verify(&graph).unwrap_or_else(|error| panic!("{error}\n{graph}"));
    after.assert_eq(&graph.to_string());
    let mut again = graph.clone();
    (pass(name).run)(&mut again);
    assert_eq!(again.to_string(), graph.to_string(), "{name} twice");
}

/// Checks that a pass does not apply: the graph stays as it is, text and values.
#[track_caller]
pub(super) fn check_refuses(name: &str, before: &str) {
    let mut graph = parsed(before);
    let plain = graph.clone();
    (pass(name).run)(&mut graph);
    assert_eq!(graph.to_string(), plain.to_string());
}
